"""Pictures of several clothes with captions that name them, by a small CLIP."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from real_tasks.base import RealTask, TrainingSpec
from real_tasks.captions import SmallCLIP, contrastive_loss, contrastive_task
from real_tasks.images import fashion_mnist

NAMES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
ACROSS = 2
SIDE, VOCABULARY = 14 * ACROSS, 12


def scenes(train_size: int = 2000, targets: int = 300) -> RealTask:
    """Four photographs of clothes in a square, 14 × 14 each, and their names, by a CLIP.

    The photographs and names are Fashion-MNIST's (Xiao et al., 2017), each photograph is in one scene only.
    """
    images, ids = _load(train_size, targets)
    texts = [", ".join(NAMES[i - 2] for i in row) for row in ids.tolist()]
    return contrastive_task("scenes", images, ids, texts, train_size)


@cache
def _load(train_size: int, targets: int) -> tuple[Tensor, Tensor]:
    images, labels = fashion_mnist()
    count, each = train_size + targets, ACROSS**2
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))[: count * each]
    small = F.avg_pool2d(images[order], 2).reshape(count, ACROSS, ACROSS, 14, 14)
    return small.permute(0, 1, 3, 2, 4).reshape(count, 1, SIDE, SIDE), labels[order].reshape(count, each) + 2


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)


_model: Callable[[], nn.Module] = partial(SmallCLIP, 1, SIDE, VOCABULARY)
SCENES = TrainingSpec(_load, _model, _optimizer, contrastive_loss, batch_size=100, epochs=10)
