"""Context managers that change a model's modes and restore them."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; restores every module's mode on exit."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        # Not model.eval(): some models keep parts in training mode then, or change their weights.
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Recurrent layers in training mode with a dropout of 0, which equals evaluation mode; restores them on exit. cuDNN
    has no backward pass in evaluation mode."""
    changed = [
        (module, module.training, module.dropout)
        for module in model.modules()
        if isinstance(module, nn.RNNBase) and type(module).forward in (nn.RNN.forward, nn.LSTM.forward, nn.GRU.forward)
    ]
    try:
        for module, *_ in changed:
            module.training, module.dropout = True, 0.0
        yield
    finally:
        for module, mode, dropout in changed:
            module.training, module.dropout = mode, dropout
