"""Check scores, indices and numbers of examples that users pass, and read scores in blocks of rows."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from trak._utils.typing import Array
from trak._utils.validation import as_array, as_indices

_SCORES_AT_ONCE, _ROWS_AT_ONCE = 1 << 22, 1 << 16


@runtime_checkable
class HasScores(Protocol):
    """An attribution, or anything else with scores."""

    @property
    def scores(self) -> Array:
        """(n_train, n_targets)."""


Scores: TypeAlias = Array | HasScores
Indices: TypeAlias = Sequence[int] | Array
"""Indices, or a boolean mask with one entry for each."""


def as_scores(given: Scores, name: str = "scores") -> Array:
    """The array (n_train, n_targets) in what was given, as it is: perhaps memory-mapped, of any floating type."""
    array = as_array(given.scores if isinstance(given, HasScores) else given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got an array of {array.dtype}; convert them to floats")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"expected {name} of shape (n_train, n_targets), got {array.shape}; reshape one target's to (n_train, 1)"
        )
    return array


def as_finite(values: Any, name: str) -> Array:
    """The same values in float64, if all of them are finite."""
    values = np.asarray(values, np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        at = tuple(np.argwhere(bad)[0].tolist())
        raise ValueError(
            f"{name} must be finite, got {values[at]} at {at}; find out where it came from, or leave it out"
        )
    return values


def as_mask(indices: Array, size: int) -> Array:
    """A boolean mask (size,) that is True at some indices."""
    return np.bincount(indices, minlength=size) > 0


def check_one_per_example(given: Any, size: int, name: str) -> Array:
    """Labels or names of one type, one for each example: (size,)."""
    array = as_array(given)
    if array.shape != (size,):
        raise ValueError(f"expected {name} of shape {(size,)}, one for each, got {array.shape}; give as many")
    kinds = {type(one).__name__ for one in array.tolist()} if array.dtype == object else set()
    if len(kinds) > 1:
        raise TypeError(f"{name} are a mixture of {' and '.join(sorted(kinds))}; give all of one type")
    return array


def check_target(target: int, size: int) -> int:
    """The index of one of `size` targets."""
    if np.ndim(target):
        raise TypeError(f"target must be one integer, got {target!r:.80}; ask for one target after the other")
    return int(as_indices([target], size, "target")[0])


def check_ks(k: int | Sequence[int], limit: int) -> list[int]:
    """Numbers of training examples between 1 and `limit`, in growing order."""
    several = list(k) if isinstance(k, Sequence | np.ndarray) else [k]
    if not several:
        raise ValueError("k is empty: give at least one number of examples")
    for one in several:
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            raise TypeError(f"k must be an integer or several, got {one!r}; give numbers of training examples")
        if not 1 <= one <= limit:
            raise ValueError(f"k must be between 1 and {limit}, got {one}; give numbers in that range")
    return sorted({int(one) for one in several})


def check_k(k: int | None, limit: int, default: int = 10) -> int:
    """One number of training examples between 1 and `limit`; for None the default, or `limit` if that is less."""
    if np.ndim(k):  # type: ignore[arg-type]
        raise TypeError(f"k must be one integer, got {k!r:.80}; ask for one number of training examples")
    return check_ks(min(default, limit) if k is None else k, limit)[0]


def row_blocks(scores: Array, columns: Array | None = None) -> Iterator[tuple[int, Array]]:
    """The scores of some targets, or all, one block of training examples after the other: (its first example, float64
    (block, columns)). A memory-mapped array is never in memory as a whole."""
    rows = min(_ROWS_AT_ONCE, max(1, _SCORES_AT_ONCE // scores.shape[1]))
    for start in range(0, len(scores), rows):
        block = scores[start : start + rows]
        block = np.asarray(block if columns is None else block[:, columns], np.float64)
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            row, column = bad[0].tolist()
            target = column if columns is None else int(columns[column])
            raise ValueError(
                f"scores must be finite, got {block[row, column]} for training example {start + row} and target "
                f"{target}; look where it came from, or replace it by 0"
            )
        yield start, block


def mean_over_targets(scores: Array, columns: Array | None = None) -> Array:
    """Mean of each training example's scores over some targets, or all: float64 (n_train,)."""
    return np.concatenate([block.mean(axis=1) for _, block in row_blocks(scores, columns)])
