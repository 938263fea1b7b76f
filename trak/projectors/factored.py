"""A projection of linear layers' gradients that never forms them: inputs first, then the sketch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trak._utils.counter_random import random_signs, stream_key
from trak.projectors.base import Projector, check_size, register_projector
from trak.projectors.gradient_blocks import OuterProducts, SparseRows
from trak.projectors.sketch import Sketch

# A matrix with so many times more rows than columns is a table.
_TABLE = 8


@register_projector("factored")
class Factored(Projector):
    """G ↦ sketch(G P) or sketch(PᵀG) for matrices, the sketch itself for all else.

    The gradient of a linear layer's weight is G = Σ_s g_s a_sᵀ, so that G P = Σ_s g_s (Pᵀa_s)ᵀ needs
    s·r·(m + n) multiplications and additions instead of s·m·n, for P of shape (n, r) with
    independent entries ±1/√r. A matrix is projected that way where it at least halves that count,
    2r(m + n) ≤ mn, along its longer side, which leaves the sketch least to read; but not along the rows
    of a table (an embedding, a language model's head), of whose gradient most may be zero. These are
    rules of shapes alone, so that the map is the same for every batch.

    Inner products stay unbiased. P adds up to (‖Gₗ‖²‖Hₗ‖² + ⟨Gₗ, Hₗ⟩²) / r for each such layer l to
    the variance of ⟨SG, SH⟩ (with the sketch's own factor 1 + 1/k on top): layers have independent P,
    so that over L layers of like size it is about 1/(rL), to be compared with the sketch's 1/k.
    """

    def __init__(self, proj_dim: int = 2048, seed: int = 0, inner_dim: int = 64) -> None:
        """
        Args:
            proj_dim, seed: as for every projector.
            inner_dim: r, columns that are left of each matrix, at least 1.

        Raises:
            ValueError, TypeError: as every projector, and for `inner_dim`.
        """
        super().__init__(proj_dim, seed)
        self.inner_dim = check_size(inner_dim, "inner_dim", 64)
        self._sketch = Sketch(proj_dim, seed)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._matrices: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        self._cached_for: int | None = None

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "inner_dim": self.inner_dim}

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> None:
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._matrices.clear()
        self._sketch.bind({name: self._sketched(shape) for name, shape in self._shapes.items()})

    def _side(self, shape: Sequence[int]) -> int | None:
        """Which dimension of a parameter P takes the place of, if any."""
        if len(shape) != 2 or 2 * self.inner_dim * (shape[0] + shape[1]) > shape[0] * shape[1]:
            return None
        return 0 if shape[1] < shape[0] < _TABLE * shape[1] else 1

    def _sketched(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of what is left for the sketch."""
        side = self._side(shape)
        return tuple(self.inner_dim if dim == side else size for dim, size in enumerate(shape))

    def _matrix(self, name: str, model_id: int, like: Tensor) -> tuple[Tensor, int] | None:
        """Pᵀ, and the side along which it is applied, if the parameter is projected that way."""
        if (side := self._side(shape := self._shapes.get(name, ()))) is None:
            return None
        if model_id != self._cached_for:
            self._matrices.clear()
            self._cached_for = model_id
        key = (name, like.device, like.dtype)
        if key not in self._matrices:
            stream = stream_key("factored", self.seed, model_id, name)
            signs = random_signs(stream, torch.arange(shape[side], device=like.device), self.inner_dim)
            signs = signs.t().to(like.dtype, memory_format=torch.contiguous_format)
            self._matrices[key] = signs / math.sqrt(self.inner_dim)
        return self._matrices[key], side

    def new_sum(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self._sketch.new_sum(batch_size, device, dtype)

    def finish(self, total: Tensor) -> Tensor:
        return self._sketch.finish(total)

    @property
    def stride(self) -> int:
        return self._sketch.stride

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        found = self._matrix(name, model_id, block)
        if found is not None:
            matrix, side = found
            whole = block.unflatten(1, self._shapes[name])
            block = (matrix @ whole if side == 0 else whole @ matrix.t()).flatten(1)
        self._sketch.add(total, name, block, model_id, first)

    def add_outer_products(self, total: Tensor, name: str, block: OuterProducts, model_id: int) -> None:
        found = self._matrix(name, model_id, block.right)
        if found is not None and found[1] == 0:
            block = OuterProducts(_linear(block.left, found[0]), block.right)
        elif found is not None:
            block = OuterProducts(block.left, _linear(block.right, found[0]))
        self._sketch.add_outer_products(total, name, block, model_id)

    def add_sparse_rows(self, total: Tensor, name: str, block: SparseRows, model_id: int) -> None:
        found = self._matrix(name, model_id, block.values)
        if found is None:
            self._sketch.add_sparse_rows(total, name, block, model_id)
        elif found[1] == 1:
            values = _linear(block.values, found[0])
            self._sketch.add_sparse_rows(total, name, SparseRows(block.indices, values, block.rows), model_id)
        else:
            left = found[0].t()[block.indices]
            self._sketch.add_outer_products(total, name, OuterProducts(left, block.values), model_id)

    def explain(self) -> str:
        """What is done to each parameter, and at what count of multiplications and additions, as a table.

        The counts of a matrix are for each position (token, say) of an example; "sketched" is how
        many numbers of each example the sketch reads.

        Raises:
            ValueError: before the parameters are known (`bind`, which `TRAKer` does).
        """
        if not self._shapes:
            raise ValueError("no parameters are known yet: call bind() with their shapes, or hand this to a TRAKer")
        lines = [f"{'parameter':<48} {'shape':>16} {'formed':>12} {'factored':>12} {'taken':>9} {'sketched':>12}"]
        for name, shape in self._shapes.items():
            size = math.prod(shape)
            plain, cheap = (f"{size}", f"{self.inner_dim * sum(shape)}") if len(shape) == 2 else ("-", "-")
            lines.append(
                f"{name:<48} {'×'.join(map(str, shape)):>16} {plain:>12} {cheap:>12} "
                f"{'plain' if self._side(shape) is None else 'factored':>9} {math.prod(self._sketched(shape)):>12}"
            )
        return "\n".join(lines)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """x weightᵀ, for x of shape (b, s, n)."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.linear(x, weight)
    # As a convolution of one pixel, which torch gives to oneDNN: twice as fast on a CPU as its matrix product.
    pixels = x.reshape(1, 1, -1, x.shape[2]).permute(0, 3, 1, 2)
    return F.conv2d(pixels, weight[:, :, None, None]).permute(0, 2, 3, 1).reshape(*x.shape[:2], -1)
