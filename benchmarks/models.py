"""The models that are timed, with a batch and a task each. Needs torch alone, so that every peer can load it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

from resnets import resnet9, resnet18

if TYPE_CHECKING:
    import trak


def bert() -> nn.Module:
    """A BERT classifier with its default attention."""
    import transformers

    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, num_labels=2
        )
    )


def gpt2() -> nn.Module:
    """A GPT-2 classifier with its default attention."""
    import transformers

    return transformers.GPT2ForSequenceClassification(
        transformers.GPT2Config(n_embd=512, n_layer=6, n_head=8, n_positions=256, pad_token_id=0, num_labels=2)
    )


@dataclass(frozen=True)
class Case:
    """What is timed."""

    make: Callable[[], nn.Module]
    task: str
    batch: Callable[[int], Any]
    batch_size: int


def images(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 32, 32), torch.randint(10, (count,))


def sentences(tokens: int, vocabulary: int) -> Callable[[int], dict[str, Tensor]]:
    def batch(count: int) -> dict[str, Tensor]:
        ids = torch.randint(1, vocabulary, (count, tokens))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.randint(2, (count,))}

    return batch


CASES = {
    "resnet9": Case(resnet9, "image_classification", images, 32),
    "resnet18": Case(resnet18, "image_classification", images, 32),
    "bert": Case(bert, "text_classification", sentences(128, 30522), 16),
    "gpt2": Case(gpt2, "text_classification", sentences(256, 50257), 8),
}


def plain_step(model: nn.Module, task: trak.tasks.Task, batch: Any) -> None:
    """What training does for a batch, without the optimizer: forward and backward of the loss."""
    for parameter in model.parameters():
        parameter.grad = None
    task.loss(task.output(model, batch)).mean().backward()
