"""Texts from four sources, by a small BERT."""

import io
import re
import tarfile
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from real_tasks.base import RealTask, Trainer, TrainingSpec
from real_tasks.packages import pypi

SOURCES = ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets", "tweets")
LENGTH, VOCABULARY = 32, 2000


def snippets(train_size: int = 1000, targets: int = 200) -> RealTask:
    """Which of four sources a text is from, by a BERT of two layers of 64 (234,692 parameters).

    4,000 snippets each of Amazon and film reviews, editorials and tweets (Hutto & Gilbert, ICWSM 2014; carried by the
    source package of vaderSentiment 3.3.2, MIT licence).
    """
    ids, labels = _load(train_size, targets)
    words = _encoded()[0]
    texts = [words[i] for i in _order(train_size + targets).tolist()]
    head, tail = slice(0, train_size), slice(train_size, None)

    def batches(some: slice, labels: Tensor) -> list[Any]:
        parts = zip(ids[some].split(100), labels.split(100), strict=True)
        return [{"input_ids": i, "attention_mask": (i > 0).long(), "labels": y} for i, y in parts]

    return RealTask(
        "snippets", "text_classification", Trainer("snippets", train_size, targets), labels[head], labels[tail],
        lambda labels: batches(head, labels), batches(tail, labels[tail]), "bert.pooler", (texts[head], texts[tail]),
    )  # fmt: skip


def _load(train_size: int, targets: int) -> tuple[Tensor, Tensor]:
    _, ids, labels = _encoded()
    order = _order(train_size + targets)
    return ids[order], labels[order]


def _order(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).permutation(len(_encoded()[2])))[:count]


@cache
def _encoded() -> tuple[list[str], Tensor, Tensor]:
    """Texts, ids of their first words (N, LENGTH) with 0 where there are none, and sources (N,)."""
    texts, sources = [], []
    for source, name in enumerate(SOURCES):
        lines = archive().extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt").read().decode("latin1").splitlines()  # type: ignore[union-attr]
        found = [line.split("\t", 2)[2].strip() for line in lines][:4000]
        texts += found
        sources += [source] * len(found)
    words = [re.findall(r"[a-z']+|[^a-z\s]", text.lower()) for text in texts]
    common = Counter(word for text in words for word in text).most_common(VOCABULARY - 2)
    number = {word: i + 2 for i, (word, _) in enumerate(common)}
    ids = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in zip(ids, words, strict=True):
        found_ids = [number.get(word, 1) for word in text[:LENGTH]] or [1]
        row[: len(found_ids)] = torch.tensor(found_ids)
    return texts, ids, torch.tensor(sources)


def archive() -> tarfile.TarFile:
    """The ratings that vaderSentiment's source package carries."""
    source = "--no-binary", ":all:", "--no-build-isolation"
    package = pypi("vaderSentiment==3.3.2", "vaderSentiment-3.3.2.tar.gz", *source)
    with tarfile.open(package) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        return tarfile.open(fileobj=io.BytesIO(inner.read()))  # type: ignore[union-attr]


def _small_bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=LENGTH, num_labels=len(SOURCES), hidden_dropout_prob=0.1,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)


def _loss(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    logits = model(input_ids=ids, attention_mask=(ids > 0).long()).logits
    return nn.functional.cross_entropy(logits, labels)


SNIPPETS = TrainingSpec(_load, _small_bert, _optimizer, _loss, batch_size=32, epochs=6)
