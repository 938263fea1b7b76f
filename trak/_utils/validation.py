"""Checks of arguments."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trak._utils.messages import first_line
from trak._utils.typing import Array


def is_number(value: Any) -> bool:
    """Whether a value is a real number; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_integer(value: Any, least: int | None = None) -> bool:
    """Whether a value is an integer of at least `least`; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and (least is None or int(value) >= least)


def as_array(given: Any) -> Array:
    """The NumPy array of an array, a list, or a tensor on any device."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float() if given.dtype == torch.bfloat16 else given  # NumPy has no bfloat16
    return np.asarray(given)


def check_indices(given: Sequence[int] | Array | None, size: int, what: str) -> Array:
    """The given indices, int64; all of them for None.

    Raises:
        ValueError: if there are none, or one is out of range or repeated.
        TypeError: if they are not integers.
    """
    if given is None:
        return np.arange(size)
    indices = as_array(given).reshape(-1)
    if not len(indices):
        raise ValueError(f"{what} is empty: choose at least one of {size}")
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{what} must be integers, got {indices[0]!s}; pass indices, of a mask np.flatnonzero(mask)")
    indices = indices.astype(np.int64)
    outside = (indices < 0) | (indices >= size)
    if outside.any():
        raise ValueError(f"{what} has {int(indices[outside][0])}, expected 0 to {size - 1}; choose from these")
    unique, counts = np.unique(indices, return_counts=True)
    if len(unique) < len(indices):
        raise ValueError(f"{what} has {int(unique[counts > 1][0])} more than once; give each once")
    return indices


def check_model(model: Any) -> nn.Module:
    """The model.

    Raises:
        TypeError: if it is not a module.
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
        ValueError: if this machine has no such device.
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
