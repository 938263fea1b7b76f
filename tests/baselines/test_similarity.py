"""Representations, nearest neighbours and shared words, each against its definition."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from models import bert, images, numbers, sequences, texts
from torch import nn

from trak.baselines import BM25, KNNShapley, RepresentationSimilarity
from trak.baselines.knn import shapley_of_neighbours
from trak.baselines.representations import LayerReader


def attributed(baseline, case, targets=2):
    model, task, data = case
    return baseline.attribute(model, task, model.state_dict(), data, data[:targets], progress=False).scores


class TestRepresentationSimilarity:
    """Features by running the layers by hand."""

    @pytest.fixture
    def features(self):
        model, _, data = images()
        with torch.no_grad():
            return model.eval()[:5](torch.cat([b[0] for b in data])).double()

    @pytest.mark.parametrize("where", [("4", "output"), ("5", "input")])
    def test_dot_and_cosine_of_the_features(self, features, where):
        layer, of = where
        found = attributed(RepresentationSimilarity(layer, "dot", of=of), images())
        np.testing.assert_allclose(found, (features @ features[:16].T).numpy(), rtol=1e-5, atol=1e-6)
        found = attributed(RepresentationSimilarity(layer, of=of), images())
        expected = torch.nn.functional.cosine_similarity(features[:, None], features[None, :16], dim=2)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)

    def test_features_of_images_are_flattened_or_averaged_over_positions(self):
        model, _, data = images()
        with torch.no_grad():
            maps = model.eval()[0](torch.cat([b[0] for b in data]))
        for pool, h in ((None, maps.flatten(1)), ((2, 3), maps.mean((2, 3)))):
            found = attributed(RepresentationSimilarity("0", "dot", pool=pool), images())
            np.testing.assert_allclose(found, (h @ h[:16].T).numpy(), rtol=1e-4, atol=1e-5)

    def test_average_over_tokens_leaves_out_those_that_the_mask_leaves_out(self):
        model, _, data = texts()
        ids, mask = (torch.cat([b[k] for b in data]) for k in ("input_ids", "attention_mask"))
        with torch.no_grad():
            h = model.embedding(ids)
        h = torch.stack([row[m.bool()].mean(0) for row, m in zip(h, mask, strict=True)])
        found = attributed(RepresentationSimilarity("embedding", "dot", pool=1), texts())
        np.testing.assert_allclose(found, (h @ h[:16].T).numpy(), rtol=1e-4, atol=1e-5)

    def test_batches_padded_to_several_lengths_need_an_average(self):
        model, task, data = texts()
        short = [{k: v[:, :5] if v.ndim == 2 else v for k, v in b.items()} for b in data]
        case = model, task, [data[0], *short[1:]]
        assert attributed(RepresentationSimilarity("embedding", pool=1), case).shape == (23, 16)
        with pytest.raises(ValueError, match=r"30 numbers an example, others 42: inputs of several lengths; average"):
            attributed(RepresentationSimilarity("embedding"), case)

    def test_first_tensor_of_what_a_layer_returns_is_taken(self):
        model, _, data = sequences()
        with torch.no_grad():
            h = model.lstm(data[0][0])[0].flatten(1)
        found = attributed(RepresentationSimilarity("lstm", "dot"), sequences())
        np.testing.assert_allclose(found, (h @ h.T).numpy(), rtol=1e-4, atol=1e-5)

    def test_layers_of_transformers_and_the_model_itself(self):
        case = bert()
        assert attributed(RepresentationSimilarity("bert.encoder", pool=1), case, 1).shape == (5, 5)
        with torch.no_grad():
            logits = case.model.eval()(**case.batches[0]).logits
        found = attributed(RepresentationSimilarity("", "dot", of="output"), case, 1)
        np.testing.assert_allclose(found, (logits @ logits.T).numpy(), rtol=1e-4, atol=1e-5)

    def test_tasks_that_run_one_example_after_the_other(self):
        class Published:
            @staticmethod
            def get_output(model, weights, buffers, image, label):
                return torch.func.functional_call(model, (weights, buffers), image[None])[0, label]

            @staticmethod
            def get_out_to_loss_grad(model, weights, buffers, batch):
                return torch.ones(len(batch[0]))

        model, _, data = images()
        np.testing.assert_allclose(
            attributed(RepresentationSimilarity("4"), (model, Published, data)),
            attributed(RepresentationSimilarity("4"), images()),
            rtol=1e-5,
        )

    def test_a_layer_called_twice_has_no_features_of_its_own(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                return self.a(torch.tanh(self.a(x)))

        data = [(torch.randn(4, 3), torch.randint(3, (4,)))]
        case = Twice(), "image_classification", data
        with pytest.raises(ValueError, match=r"not one tensor for each of the batch's 4 examples.* in 2 calls"):
            attributed(RepresentationSimilarity("a"), case)
        with pytest.raises(ValueError, match=r"'unused' is not one tensor .*but none in 0 calls"):
            attributed(RepresentationSimilarity("unused"), case)

    def test_unknown_layer_suggests_the_nearest(self):
        with pytest.raises(ValueError, match=r"no layer 'haed': did you mean 'head'\?"):
            attributed(RepresentationSimilarity("haed"), texts())

    @pytest.mark.parametrize(
        "make, error, message",
        [
            (lambda: RepresentationSimilarity("0", "cos"), ValueError, "metric must be 'dot' or 'cosine', got 'cos'"),
            (lambda: LayerReader("0", "outputs"), ValueError, "of must be 'output' or 'input', got 'outputs'"),
            (lambda: LayerReader("0", pool=0), ValueError, "pool must be dimensions from 1 on"),
            (lambda: LayerReader(3), TypeError, "layer must be the name of a module, got 3"),
        ],
    )
    def test_settings_that_can_not_be_are_refused(self, make, error, message):
        with pytest.raises(error, match=message):
            make()

    def test_a_dimension_that_is_not_there_is_refused(self):
        with pytest.raises(ValueError, match=r"pool=\(2,\), but the output of layer '5' is \(8, 3\)"):
            attributed(RepresentationSimilarity("5", pool=2), images())

    def test_features_that_are_not_finite_are_refused(self):
        model, task, data = numbers()
        data[1][0][2, 1] = torch.nan
        with pytest.raises(ValueError, match=r"features of example 10, targets, checkpoint 0, layer '3', are not fini"):
            attributed(RepresentationSimilarity("3"), (model, task, data))


def shapley_by_enumeration(value, n):
    """The definition: the weighted sum over all subsets without i of what i adds."""
    subsets = [frozenset(s) for size in range(n + 1) for s in itertools.combinations(range(n), size)]
    values = {s: np.asarray(value(sorted(s)), float) for s in subsets}
    found = []
    for i in range(n):
        weight = {len(s): 1 / (n * math.comb(n - 1, len(s))) for s in subsets if len(s) < n}
        found.append(sum(weight[len(s)] * (values[s | {i}] - values[s]) for s in subsets if i not in s))
    return np.array(found)


class TestKNNShapley:
    """Against enumeration of all subsets of 8 points."""

    @pytest.fixture
    def points(self):
        torch.manual_seed(0)
        x, y = torch.randn(13, 3).double(), torch.randint(2, (13,))
        x[6] = x[2]  # equally near
        return nn.Linear(3, 2).double(), [(x[:5], y[:5]), (x[5:8], y[5:8])], [(x[8:11], y[8:11]), (x[11:], y[11:])]

    def truth(self, train, targets, k, features=lambda x: x):
        x, y = (torch.cat([b[j] for b in train]) for j in (0, 1))
        new, label = (torch.cat([b[j] for b in targets]) for j in (0, 1))
        x, new = features(x).detach().numpy(), features(new).detach().numpy()

        def value(subset):
            found = []
            for target, wanted in zip(new, label.tolist(), strict=True):
                near = sorted(subset, key=lambda i: (np.linalg.norm(x[i] - target), i))[:k]
                found.append(sum(int(y[i]) == wanted for i in near) / k)
            return found

        return shapley_by_enumeration(value, 8)

    @pytest.mark.parametrize("k", [1, 3, 8, 20])
    def test_values_on_raw_inputs_equal_enumeration(self, points, k):
        model, train, targets = points
        found = KNNShapley(k).attribute(
            model, "image_classification", model.state_dict(), train, targets, progress=False
        )
        np.testing.assert_allclose(found.scores, self.truth(train, targets, k), rtol=1e-5, atol=1e-7)

    def test_values_on_a_layer_equal_enumeration_and_their_mean_over_checkpoints(self, points):
        model, train, targets = points
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        states, expected = [], []
        for _ in range(2):
            with torch.no_grad():
                model[0].weight.normal_()
            states.append({k: v.clone() for k, v in model.state_dict().items()})
            expected.append(self.truth(train, targets, 2, model[:2]))
        baseline = KNNShapley(2, layer="1")
        found = baseline.attribute(model, "image_classification", states, train, targets, progress=False)
        np.testing.assert_allclose(found.scores, np.mean(expected, axis=0), rtol=1e-5, atol=1e-7)

    def test_values_of_a_target_add_up_to_the_probability_of_its_label(self):
        found = attributed(KNNShapley(5), images())
        data = images().batches
        x, y = torch.cat([b[0] for b in data]).flatten(1), torch.cat([b[1] for b in data])
        near = torch.cdist(x[:16], x).argsort(dim=1)[:, :5]
        expected = (y[near] == y[:16, None]).double().mean(1)
        np.testing.assert_allclose(found.sum(0), expected.numpy(), rtol=1e-4, atol=1e-6)

    def test_some_targets_at_a_time_give_the_same(self, monkeypatch):
        whole = attributed(KNNShapley(3), images())
        monkeypatch.setattr("trak.baselines.knn._SORTED_AT_ONCE", 50)
        np.testing.assert_array_equal(attributed(KNNShapley(3), images()), whole)

    def test_labels_of_ones_own_make_any_task_do(self):
        baseline = KNNShapley(2, labels=lambda batch: (batch[1] > 0).long())
        found = attributed(baseline, numbers())
        model, _, data = numbers()
        classes = [(x, (y > 0).long()) for x, y in data]
        wide = nn.Sequential(model, nn.Linear(1, 2))
        np.testing.assert_array_equal(found, attributed(KNNShapley(2), (wide, "image_classification", classes)))

    def test_what_has_no_labels_or_no_numbers_is_refused_with_the_cure(self):
        with pytest.raises(ValueError, match=r"Regression is no classification task.*pass labels="):
            attributed(KNNShapley(), numbers())
        with pytest.raises(ValueError, match=r"torch.int64, such as token ids; name a layer behind the embedding"):
            attributed(KNNShapley(), texts())
        for k in (0, 2.5, True):
            with pytest.raises(ValueError, match=f"k must be an integer, at least 1, got {k}"):
                KNNShapley(k)

    def test_formula_is_float64_whatever_the_features(self):
        found = shapley_of_neighbours(torch.tensor([[2.0, 1.0, 3.0]]), torch.tensor([[True, False, True]]), 1)
        # Nearest first: wrong, right, right. s3 = 1/3, s2 = s3, s1 = s2 - 1.
        torch.testing.assert_close(found, torch.tensor([[1 / 3, -2 / 3, 1 / 3]], dtype=torch.float64))


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
