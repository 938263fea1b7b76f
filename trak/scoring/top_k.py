"""The k strongest training examples of each target."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trak._utils.typing import Array


class TopK(NamedTuple):
    """The strongest training examples of each target, strongest first."""

    indices: Array
    """int64 (n_targets, k)."""
    scores: Array
    """float32 (n_targets, k)."""


class TopKQuery(NamedTuple):
    """The k highest scores of each target, or with `bottom` the k lowest."""

    k: int
    bottom: bool = False

    @property
    def sign(self) -> float:
        """The factor by which scores are multiplied so that the largest ones are wanted."""
        return -1.0 if self.bottom else 1.0

    def merge(self, parts: Array) -> TopK:
        """The strongest of the strongest examples of parts of the training set; of equal scores the lower index first.

        Args:
            parts: float64 (parts, n_targets · 2 · k), the parts in order: for each target the k largest of the scores
                times `sign`, and their indices.
        """
        k = self.k
        values, indices = parts.reshape(len(parts), -1, 2, k).transpose(2, 1, 0, 3).reshape(2, -1, len(parts) * k)
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
        scores, indices = np.take_along_axis(values, order, 1) * self.sign, np.take_along_axis(indices, order, 1)
        return TopK(indices.astype(np.int64), scores.astype(np.float32))


class RunningTopK:
    """The largest k of the values seen so far in each row, and their positions."""

    def __init__(self, rows: int, k: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self._k = k
        self.largest = torch.empty(rows, 0, dtype=dtype, device=device)
        """(rows, k) or fewer, largest first; of equal ones the lower position first."""
        self.positions = torch.empty(rows, 0, dtype=torch.int64, device=device)
        """int64, of the same shape."""

    def update(self, values: Tensor, start: int) -> None:
        """Take into account more values (rows, columns), the first of them at position `start`."""
        # After the first k, most columns beat none of a row's largest, and of equal values the earlier counts.
        some = torch.arange(values.shape[1], device=values.device)
        if self.largest.shape[1] == self._k:
            some = (values > self.largest[:, -1:]).any(dim=0).nonzero()[:, 0]
        value, index = _stable_top(values[:, some], self._k)
        together = torch.cat((self.largest, value), dim=1)
        positions = torch.cat((self.positions, some[index] + start), dim=1)
        together, order = together.sort(dim=1, descending=True, stable=True)
        self.largest, self.positions = together[:, : self._k], positions.gather(1, order)[:, : self._k]


def check_k(k: int, n: int) -> int:
    """A valid number of training examples out of n.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is not between 1 and n.
    """
    if isinstance(k, bool) or not hasattr(k, "__index__"):
        raise TypeError(
            f"k must be an integer, got {k!r}; give the number of training examples that you want for each target"
        )
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of training examples, {n}, got {k}; ask for {n} or fewer")
    return int(k)


def _stable_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, largest first, ties by position."""
    k = min(k, scores.shape[1])
    smallest = scores.topk(k, dim=1, sorted=True).values[:, -1:]
    # Ties at the edge: of those equal to the k-th value, keep the first ones.
    above, equal = scores > smallest, scores == smallest
    keep = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    index = keep.nonzero()[:, 1].reshape(len(scores), k)
    value, order = scores.gather(1, index).sort(dim=1, descending=True, stable=True)
    return value, index.gather(1, order)
