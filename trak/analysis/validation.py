"""Slices of targets, labels, and scores a block of rows at a time."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from trak._utils.validation import as_array, check_indices
from trak.evaluation.validation import Choice, numbers_of_examples

Array = np.ndarray[Any, Any]
Slice: TypeAlias = Choice
"""Indices, or a mask: bool, one for each."""

_SCORES_AT_ONCE = 1 << 22


def chosen(given: Slice | None, size: int, what: str) -> Array:
    """The indices meant by a mask or by indices, int64; all of them for None.

    Raises:
        ValueError: for a mask of another length, none chosen, or an index out of range or repeated.
        TypeError: for anything else.
    """
    mask = None if given is None else as_array(given)
    if mask is None or mask.dtype != bool:
        return check_indices(given, size, what)
    if mask.shape != (size,):
        raise ValueError(f"{what} is a mask of shape {mask.shape}, expected {(size,)}; give True or False for each")
    if not mask.any():
        raise ValueError(f"{what} is a mask that is True nowhere: choose at least one of {size}")
    return np.flatnonzero(mask)


def one_each(given: Any, size: int, what: str) -> Array:
    """Labels or names, one for each example: (size,).

    Raises:
        ValueError: for another number of them.
        TypeError: for a mixture, such as of strings and None.
    """
    array = as_array(given)
    if array.shape != (size,):
        raise ValueError(f"expected {what} of shape {(size,)}, one for each, got {array.shape}; give as many")
    kinds = {type(one).__name__ for one in array.tolist()} if array.dtype == object else set()
    if len(kinds) > 1:
        raise TypeError(f"{what} are a mixture of {' and '.join(sorted(kinds))}; give all of one type")
    return array


def one_target(target: int, count: int) -> int:
    """The target as a plain number.

    Raises:
        ValueError: if it is out of range.
        TypeError: if it is not one integer.
    """
    if np.ndim(target):
        raise TypeError(f"target must be one integer, got {target!r:.80}; ask for one target after the other")
    return int(check_indices([target], count, "targets").item())


def one_number(k: int, limit: int) -> int:
    """A number of training examples.

    Raises:
        ValueError: if it is not between 1 and `limit`.
        TypeError: if it is not one integer.
    """
    if np.ndim(k):
        raise TypeError(f"k must be one integer, got {k!r:.80}; ask for one number of training examples")
    (found,) = numbers_of_examples(k, limit)
    return found


def row_blocks(scores: Array, columns: Array | None = None) -> Iterator[tuple[int, Array]]:
    """The scores of some targets, or all, a block of training examples after the other: (its first example, float64
    (block, columns)). What is mapped is never in memory as a whole.

    Raises:
        ValueError: if a score is not finite.
    """
    rows = max(1, _SCORES_AT_ONCE // scores.shape[1])
    for start in range(0, len(scores), rows):
        block = scores[start : start + rows]
        block = np.asarray(block if columns is None else block[:, columns], np.float64)
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            row, column = bad[0].tolist()
            target = column if columns is None else int(columns[column])
            raise ValueError(
                f"the score of training example {start + row} for target {target} is {block[row, column]}; scores must "
                "be finite; look where it came from, or replace it by 0"
            )
        yield start, block


def strongest(values: Array, k: int, lowest: bool = False) -> Array:
    """Indices of the k highest values, or the lowest, strongest first; of equal ones the lower index comes first."""
    return np.argsort(values if lowest else -values, kind="stable")[:k]


def listed(indices: Array, values: Array, form: str = "+.3g") -> str:
    """Such as "#7 +0.3, #2 +0.1"."""
    return ", ".join(f"#{i} {x:{form}}" for i, x in zip(indices.tolist(), values.tolist(), strict=True))
