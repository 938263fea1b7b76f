"""Checks of arguments."""

from collections.abc import Collection
from numbers import Real
from typing import Any

import torch
from torch import nn

from trak._utils.messages import first_line, suggest


def is_number(value: Any) -> bool:
    """Whether it can be compared with numbers; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_count(value: Any, name: str, least: int = 1) -> int:
    """The value as an int.

    Raises:
        ValueError: if it is not an integer, or less than `least`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{name} must be an integer of {least} or more, got {value!r}; give a whole number")
    return int(value)


def check_fraction(value: Any, name: str) -> float:
    """The value as a float.

    Raises:
        ValueError: if it is not a number between 0 and 1, ends excluded.
    """
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}; give a number such as 0.5 or 0.95")
    return float(value)


def check_option(value: Any, name: str, options: Collection[str]) -> str:
    """The value.

    Raises:
        ValueError: if it is not one of the options.
    """
    if value not in options:
        raise ValueError(f"unknown {name} {value!r}: {suggest(str(value), options)}")
    return str(value)


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
