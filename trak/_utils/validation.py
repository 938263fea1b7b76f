"""Checks of arguments."""

from numbers import Real
from typing import Any

import torch
from torch import nn

from trak._utils.messages import first_line


def is_number(value: Any) -> bool:
    """Whether it can be compared with numbers; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_model(model: Any) -> nn.Module:
    """The model.

    Raises:
        TypeError: if it is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; pass the model itself, and the weights as a "
            "checkpoint"
        )
    return model


def check_device(given: str | int | torch.device) -> torch.device:
    """The device.

    Raises:
        ValueError: if there is none of the name on this machine.
    """
    try:
        device = torch.device(given)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = first_line(error)
        raise ValueError(
            f"device {given!r} can't be used ({reason}); use one that this machine has, such as 'cpu', or leave device "
            "out for the best"
        ) from error
    return device
