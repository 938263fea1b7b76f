"""Per-example gradients of one parameter, dense or in a form from which a projection may gain."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

_buffers = threading.local()


def reusable_buffer(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return uninitialized memory of the type and on the device of `like`, valid until this thread's next call.

    Fresh memory costs more than what is done with it: the system clears every page at its first touch.
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)  # such devices keep their memory themselves
    held: dict[torch.dtype, Tensor] = vars(_buffers).setdefault("held", {})
    numel = math.prod(shape)
    if like.dtype not in held or held[like.dtype].numel() < numel:
        held[like.dtype] = torch.empty(numel, dtype=like.dtype)
    return held[like.dtype][:numel].view(*shape)


@dataclass(frozen=True)
class OuterProducts:
    """Σ_s left_s right_sᵀ for each example: the weight gradient of a linear map over s positions."""

    left: Tensor
    """(b, s, m)."""
    right: Tensor
    """(b, s, n)."""
    shape: tuple[int, ...] | None = None
    """The parameter's shape, by default (m, n)."""

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, examples: slice) -> "OuterProducts":
        return OuterProducts(self.left[examples], self.right[examples], self.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        """Some rows of each example's matrix, (b, stop - start, n), in memory that the next block will use again."""
        left = self.left[:, :, start:stop].transpose(1, 2)
        product = reusable_buffer((len(left), left.shape[1], self.right.shape[2]), left)
        if self.left.shape[1] == 1:
            return torch.mul(left, self.right, out=product)
        return torch.bmm(left, self.right, out=product)

    def dense(self) -> Tensor:
        """`(b, *shape)`, in memory that the next block will use again."""
        product = self.rows(0, self.left.shape[2])
        return product if self.shape is None else product.view(len(product), *self.shape)


@dataclass(frozen=True)
class SparseRows:
    """Rows of a matrix, the rest of it zero: the gradient of an embedding."""

    indices: Tensor
    """(b, s), int64; a row may come more than once and its values add up."""
    values: Tensor
    """(b, s, d)."""
    rows: int
    """Number of rows of the matrix."""

    def __len__(self) -> int:
        return len(self.indices)

    def dense(self) -> Tensor:
        """(b, rows, d)."""
        b, _, d = self.values.shape
        result = self.values.new_zeros(b, self.rows, d)
        return result.scatter_add_(1, self.indices.unsqueeze(-1).expand_as(self.values), self.values)


Block: TypeAlias = Tensor | OuterProducts | SparseRows
