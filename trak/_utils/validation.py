"""Checks of arguments."""

from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trak._utils.messages import first_line, suggest
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


def as_indices(given: Sequence[int] | Array | None, size: int, name: str) -> Array:
    """The indices meant by indices or by a boolean mask, int64 and at least one; all of them for None."""
    if given is None:
        return np.arange(size)
    indices = np.atleast_1d(as_array(given))
    if indices.dtype == bool:
        if indices.shape != (size,):
            raise ValueError(
                f"{name} is a mask of shape {indices.shape}, expected {(size,)}; give True or False for each"
            )
        if not indices.any():
            raise ValueError(f"{name} is a mask that is True nowhere, of {size}; choose at least one")
        return np.flatnonzero(indices)
    if not indices.size:
        raise ValueError(f"{name} is empty: choose at least one of {size}")
    if indices.dtype.kind not in "iu" or indices.ndim > 1:
        raise TypeError(
            f"{name} must be integers in one dimension, got {indices.dtype} of shape {indices.shape}; pass a list of "
            "indices, or a mask"
        )
    outside = (indices < 0) | (indices >= size)
    if outside.any():
        raise ValueError(f"{name} must be between 0 and {size - 1}, got {int(indices[outside][0])}; give others")
    unique, counts = np.unique(indices, return_counts=True)
    if len(unique) < len(indices):
        raise ValueError(f"{name} must be distinct, got {int(unique[counts > 1][0])} more than once; give each once")
    return indices.astype(np.int64)


def check_count(value: Any, name: str, least: int = 1) -> int:
    """The value as an int; a ValueError if it is not an integer, or less than `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{name} must be an integer of {least} or more, got {value!r}; give a whole number")
    return int(value)


def check_fraction(value: Any, name: str) -> float:
    """The value as a float; a ValueError if it is not a number between 0 and 1, ends excluded."""
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}; give a number such as 0.5 or 0.95")
    return float(value)


def check_option(value: Any, name: str, options: Collection[str]) -> str:
    """The value; a ValueError if it is not one of the options."""
    if value not in options:
        raise ValueError(f"unknown {name} {value!r}: {suggest(str(value), options)}")
    return str(value)


def check_model(model: Any) -> nn.Module:
    """The model; a TypeError if it is not a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; pass the model itself, and the weights as a "
            "checkpoint"
        )
    return model


def check_device(given: str | int | torch.device) -> torch.device:
    """The device; a ValueError if this machine has no such device."""
    try:
        device = torch.device(given)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device {given!r} can't be used ({first_line(error)}); use one that this machine has, such as 'cpu', or "
            "leave device out for the best"
        ) from error
    return device
