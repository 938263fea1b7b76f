"""Scores and choices of rows as users have them."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from trak._utils.validation import as_array

Array = np.ndarray[Any, Any]


@runtime_checkable
class HasScores(Protocol):
    """An attribution, or anything else with scores."""

    @property
    def scores(self) -> Array:
        """(n_train, n_targets)."""


Scores: TypeAlias = Array | HasScores
Choice: TypeAlias = Sequence[int] | Array


def as_scores(given: Scores, what: str = "scores") -> Array:
    """The array (n_train, n_targets) in what was given, as it is: perhaps mapped, of any floating type.

    Raises:
        ValueError: if it isn't two-dimensional, or empty.
        TypeError: if it isn't numeric.
    """
    array = as_array(given.scores if isinstance(given, HasScores) else given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what} must be real numbers, got an array of {array.dtype}; convert them to floats")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"expected {what} of shape (n_train, n_targets), got {array.shape}; reshape one target's to (n_train, 1)"
        )
    return array


def finite(values: Array, what: str) -> Array:
    """The same values in float64.

    Raises:
        ValueError: if one is not finite.
    """
    values = np.asarray(values, np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{what} must be finite, got {values[at]} at {at}; find out where it came from, or leave it out"
        )
    return values


def numbers_of_examples(k: int | Sequence[int], limit: int) -> list[int]:
    """How many examples to look at, in growing order.

    Raises:
        ValueError: if there is none, or one is not between 1 and `limit`.
        TypeError: if one is no integer.
    """
    several = list(k) if isinstance(k, Sequence | np.ndarray) else [k]
    if not several:
        raise ValueError("k is empty: give at least one number of examples")
    for one in several:
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            raise TypeError(f"k must be an integer or several, got {one!r}; give numbers of training examples")
        if not 1 <= one <= limit:
            raise ValueError(f"k must be between 1 and {limit}, got {one}; give numbers in that range")
    return sorted({int(one) for one in several})


def count(value: int, what: str, least: int = 1) -> int:
    """A number of something.

    Raises:
        ValueError: if it is no integer, or less than `least`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{what} must be an integer of {least} or more, got {value!r}; give a whole number")
    return int(value)
