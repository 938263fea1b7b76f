"""The models that are timed, with a batch and a task each. Needs torch alone, so that every peer can load it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import trak


def convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def resnet9() -> nn.Module:
    """The ResNet-9 of CIFAR speed records: 2.3 million parameters for 32 × 32 images."""
    return nn.Sequential(
        convolution(3, 64), convolution(64, 128, kernel=5, stride=2),
        Residual(convolution(128, 128), convolution(128, 128)),
        convolution(128, 256), nn.MaxPool2d(2), Residual(convolution(256, 256), convolution(256, 256)),
        convolution(256, 128), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, 10, bias=False),
    )  # fmt: skip


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet18(width: int = 64) -> nn.Module:
    """ResNet-18 for 32 × 32 images: 11 million parameters at width 64."""
    widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
    strides = [1, 1, 2, 1, 2, 1, 2, 1]
    inputs = [width, *widths[:-1]]
    blocks = [BasicBlock(*sizes) for sizes in zip(inputs, widths, strides, strict=True)]
    return nn.Sequential(
        convolution(3, width), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10)
    )


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
