"""BM25 against its formula."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from models import images, texts

from trak.baselines import BM25


def bm25_by_formula(documents, queries, k1=1.5, b=0.75):
    """Lucene's variant: Σ_w ln(1 + (N - df + 0.5)/(df + 0.5)) tf/(tf + k1 (1 - b + b dl/avgdl)) for a query of w."""
    n, average = len(documents), np.mean([len(d) for d in documents])
    scores = np.zeros((n, len(queries)))
    for t, query in enumerate(queries):
        for word in query:
            df = sum(word in d for d in documents)
            for i, document in enumerate(documents):
                tf = Counter(document)[word]
                norm = k1 * (1 - b + b * len(document) / average)
                scores[i, t] += math.log(1 + (n - df + 0.5) / (df + 0.5)) * tf / (tf + norm)
    return scores


class TestBM25:
    """By bm25s, against the formula."""

    def scores(self, train, targets, **settings):
        return BM25(**settings).attribute(None, None, [], train, targets, progress=False).scores

    def words(self, data):
        return [
            row[mask.bool()].tolist()
            for b in data
            for row, mask in zip(b["input_ids"], b["attention_mask"], strict=True)
        ]

    @pytest.mark.parametrize("settings", [{}, {"k1": 0.9, "b": 0.4}, {"b": 0.0}])
    def test_token_ids_without_padding_equal_the_formula(self, settings):
        _, _, data = texts()
        words = self.words(data)
        found = self.scores(data, data[:2], **settings)
        np.testing.assert_allclose(found, bm25_by_formula(words, words[:16], **settings), rtol=1e-5, atol=1e-6)

    def test_tuples_of_the_text_task_mean_the_same_as_dicts(self):
        _, _, data = texts()
        three = [tuple(b.values()) for b in data]
        four = [(b["input_ids"], torch.zeros_like(b["input_ids"]), *list(b.values())[1:]) for b in data]
        expected = self.scores(data, data[:2])
        np.testing.assert_array_equal(self.scores(three, three[:2]), expected)
        np.testing.assert_array_equal(self.scores(four, four[:2]), expected)

    def test_without_a_mask_ids_to_ignore_leave_out_padding(self):
        _, _, data = texts()
        padded = [
            (torch.where(b["attention_mask"].bool(), b["input_ids"], torch.full_like(b["input_ids"], 99)), b["labels"])
            for b in data
        ]
        np.testing.assert_array_equal(self.scores(padded, padded[:2], ignore={99}), self.scores(data, data[:2]))

    def test_strings_in_lists_fields_and_alone_equal_the_formula(self):
        documents = ["the cat sat on the mat", "a dog sat on the log", "colourless green ideas", "the cat and the dog"]
        queries = ["the cat", "green green dog", "nothing known"]
        expected = bm25_by_formula(*([[w for w in t.split() if len(w) > 1] for t in ts] for ts in (documents, queries)))
        for train, targets in (
            ([documents[:3], documents[3:]], [queries]),
            (documents, queries),
            ([{"text": documents, "label": torch.zeros(4)}], [(queries, torch.zeros(3))]),
        ):
            np.testing.assert_allclose(self.scores(train, targets), expected, rtol=1e-5, atol=1e-6)
        assert (expected[:, 2] == 0).all()

    def test_stopwords_do_not_count(self):
        train, targets = [["the cat", "the dog"]], [["the"]]
        assert (self.scores(train, targets) > 0).all()
        assert (self.scores(train, targets, stopwords="en") == 0).all()
        assert (self.scores(train, targets, stopwords=["the"]) == 0).all()

    @pytest.mark.parametrize("method", ["robertson", "atire", "bm25l", "bm25+"])
    def test_every_variant_prefers_the_document_with_the_words(self, method):
        train = [["cats purr loudly", "dogs bark", "cats purr and dogs bark at cats", "fish", "birds", "ants"]]
        found = self.scores(train, [["cats purr"]], method=method)
        assert set(found[:, 0].argsort()[-2:]) == {0, 2}

    def test_what_holds_no_text_is_refused(self):
        with pytest.raises(ValueError, match=r"a batch of train \(tuple\) holds no text"):
            self.scores(images().batches, images().batches)
        with pytest.raises(ValueError, match="training examples has a word"):
            self.scores([["", "!"]], [["a cat"]])
        with pytest.raises(ValueError, match="targets yields no examples"):
            self.scores([["cats"]], [])
        with pytest.raises(TypeError, match="train is an iterator"):
            self.scores(iter([["cats"]]), [["cats"]])
        wrong = {"input_ids": torch.ones(2, 3).long(), "attention_mask": torch.ones(2, 2)}
        with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 2\), expected \(2, 3\)"):
            self.scores([wrong], [wrong])

    def test_settings_that_can_not_be_are_refused(self):
        with pytest.raises(ValueError, match=r"unknown method 'lucine': did you mean 'lucene'\?"):
            BM25("lucine")
        with pytest.raises(ValueError, match=r"b between 0 and 1, got 1\.5 and 2"):
            BM25(b=2)
