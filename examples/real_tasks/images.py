"""Digits and clothes, by small CNNs."""

import gzip
from functools import cache
from typing import Any

import numpy as np
import quickstart
import torch
from torch import Tensor, nn

from real_tasks.base import RealTask, Trainer, TrainingSpec
from real_tasks.packages import debian

_FILES = {"train-images-idx3-ubyte": 16, "train-labels-idx1-ubyte": 8}
"""With the lengths of their headers, in bytes."""


def digits(train_size: int = 1000, targets: int = 200) -> RealTask:
    """Handwritten digits, 8 × 8 (scikit-learn's), by a CNN of 19,977 parameters."""
    return _task(DIGITS, Trainer("digits", train_size, targets), "7")


def fashion(train_size: int = 2000, targets: int = 200) -> RealTask:
    """Photographs of clothes, 28 × 28 (Fashion-MNIST; Xiao et al., 2017), by a CNN of 30,794 parameters.

    Debian's package dataset-fashion-mnist (MIT licence) carries them.
    """
    return _task(FASHION, Trainer("fashion", train_size, targets), "8")


def _task(spec: TrainingSpec, trainer: Trainer, representation: str) -> RealTask:
    parts = (t.split([trainer.train_size, trainer.targets]) for t in spec.load(trainer.train_size, trainer.targets))
    (images, held_out), (labels, wanted) = parts

    def batches(images: Tensor, labels: Tensor) -> list[Any]:
        return list(zip(images.split(100), labels.split(100), strict=True))

    return RealTask(
        trainer.name, "image_classification", trainer, labels, wanted, lambda labels: batches(images, labels),
        batches(held_out, wanted), representation,
    )  # fmt: skip


def _load_digits(train_size: int, targets: int) -> tuple[Tensor, Tensor]:
    quickstart.TRAIN, quickstart.TARGETS = train_size, targets
    (images, labels), (held_out, wanted) = (data.tensors for data in quickstart.load())
    return torch.cat([images, held_out]), torch.cat([labels, wanted])


def _load_fashion(train_size: int, targets: int) -> tuple[Tensor, Tensor]:
    images, labels = fashion_mnist()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))[: train_size + targets]
    return images[order], labels[order]


@cache
def fashion_mnist() -> tuple[Tensor, Tensor]:
    """60,000 images (N, 1, 28, 28) in [-1, 1] and labels (N,)."""
    folder = debian("dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist")
    images, labels = (
        torch.frombuffer(bytearray(gzip.decompress((folder / f"{name}.gz").read_bytes())[header:]), dtype=torch.uint8)
        for name, header in _FILES.items()
    )
    return images.reshape(-1, 1, 28, 28).float() / 127.5 - 1, labels.long()


def _small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32), nn.ReLU(),
        nn.Linear(32, 10),
    )  # fmt: skip


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)


def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(images), labels)


DIGITS = TrainingSpec(_load_digits, quickstart.make_model, _optimizer, _loss, batch_size=50, epochs=12)
FASHION = TrainingSpec(_load_fashion, _small_cnn, _optimizer, _loss, batch_size=50, epochs=20)
