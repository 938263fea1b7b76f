"""A model's modes, and their way back."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; every module's mode is as it was on leaving."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        # Not model.eval(): some models keep parts in training mode then, or change their weights.
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
