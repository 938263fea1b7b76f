"""Rotated-block CountSketch: a projection that costs one pass over the gradient."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trak._utils.counter_random import random_words, stream_key
from trak._utils.torch_private import foreach_addcmul_
from trak.projectors.base import Projector, kernels_for, register_projector
from trak.projectors.gradient_blocks import SparseRows

_POOL_BLOCKS = 65
_MAX_VIEWS = 1 << 17


class _Plan:
    """Sign, place in the pool of signs, and shift of each block of one parameter."""

    def __init__(self, seed: int, model_id: int, name: str, blocks: int, proj_dim: int, pool: Tensor) -> None:
        counters = torch.arange(blocks)
        row_key, offset_key = _keys(seed, model_id, name)
        rows, starts = random_words(row_key, counters), random_words(offset_key, counters)
        block_signs = (rows & 1) * 2 - 1
        offsets = (starts & (2**63 - 1)) % _starts(proj_dim)
        shifts = ((rows >> 1) & (2**62 - 1)) % proj_dim
        self.pool, self.block_signs = pool, block_signs.to(pool)
        self.offsets, self.shifts = offsets.to(pool.device), shifts.to(pool.device)
        self.sign_list, self.shift_list = block_signs.to(torch.float64).tolist(), shifts.tolist()
        self.signs = [pool[offset : offset + proj_dim] for offset in offsets.tolist()]


def _keys(seed: int, model_id: int, name: str) -> tuple[int, int]:
    """Of the words that give blocks their signs and shifts, and their places in the pool."""
    return stream_key("sketch-blocks", seed, model_id, name), stream_key("sketch-offsets", seed, model_id, name)


def _starts(proj_dim: int) -> int:
    """Number of places in the pool at which a block may begin."""
    return (_POOL_BLOCKS - 1) * proj_dim + 1


@register_projector("sketch")
class Sketch(Projector):
    """CountSketch (Charikar, Chen & Farach-Colton, 2002) with streaming bucket choice.

    A parameter's flat gradient is cut into blocks of k. Coordinate j of block b gets the sign
    t_b·s[o_b + j] and goes to bucket (j + r_b) mod k, with t, o, r and a checkpoint's pool s of 65k
    signs from a counter-based hash. Two coordinates of one block never share a bucket, two of
    different blocks do with probability 1/k. A product of four signs over two colliding pairs is
    constant only if the pairs are equal or their blocks start at one of two distances in the pool,
    which has probability 1/(64k) each: a factor of at most 1 + 1/64 over the variance of fully
    independent signs, for 65k + 3p/k random numbers instead of p. With one row of k signs for all
    blocks it would be 2 where blocks are alike, as in a Linear layer with k inputs.

    Every product is with ±1 and every sum runs in block order, so the features of an example are
    the same bits on every device and in every batch.
    """

    def __init__(self, proj_dim: int = 2048, seed: int = 0) -> None:
        super().__init__(proj_dim, seed)
        self._pools: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._plans: dict[tuple[str, torch.device, torch.dtype], _Plan] = {}
        self._cached_for: int | None = None
        self._sizes: dict[str, int] = {}
        # The sum of one batch after another in the same memory, so that views of it, which take longer to make than to
        # add to, can be kept.
        self._buffer: Tensor | None = None
        self._buffer_in_use = False
        self._views: dict[tuple[int, int, str, int, int], list[Tensor]] = {}
        self._view_count = 0

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> None:
        self._sizes = {name: math.prod(shape) for name, shape in shapes.items()}

    def _pool(self, model_id: int, like: Tensor) -> Tensor:
        """The checkpoint's signs; what is kept of another checkpoint is dropped."""
        if model_id != self._cached_for:
            self._pools.clear()
            self._plans.clear()
            self._drop_views()
            self._cached_for = model_id
        where = (like.device, like.dtype)
        if where not in self._pools:
            key = stream_key("sketch-signs", self.seed, model_id)
            words = random_words(key, torch.arange(_POOL_BLOCKS * self.proj_dim))
            self._pools[where] = ((words & 1) * 2 - 1).to(like)
        return self._pools[where]

    def _plan(self, name: str, numel: int, model_id: int, like: Tensor) -> _Plan:
        pool, key = self._pool(model_id, like), (name, like.device, like.dtype)
        # Of the whole parameter, though a part may be all that is asked for now.
        blocks = -(-max(numel, self._sizes.get(name, 0)) // self.proj_dim)
        if key not in self._plans or len(self._plans[key].signs) < blocks:
            self._plans[key] = _Plan(self.seed, model_id, name, blocks, self.proj_dim, pool)
        return self._plans[key]

    def new_sum(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        # Twice as wide, so that a rotated block is one contiguous write; finish() folds it.
        shape = (batch_size, 2 * self.proj_dim)
        if self._buffer is not None and not self._buffer_in_use:
            if (self._buffer.shape, self._buffer.device, self._buffer.dtype) == (shape, device, dtype):
                self._buffer_in_use = True
                return self._buffer.zero_()
            self._buffer = None
        fresh = torch.zeros(shape, device=device, dtype=dtype)
        if self._buffer is None:
            self._buffer, self._buffer_in_use = fresh, True
            self._drop_views()
        return fresh

    @property
    def stride(self) -> int:
        return self.proj_dim

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        k, width = self.proj_dim, block.shape[1]
        if (kernels := kernels_for(block)) is not None:
            keys = _keys(self.seed, model_id, name)
            kernels.add_sketch(total, block, self._pool(model_id, block), first // k, *keys, _starts(k))
            return
        plan, whole, begin = self._plan(name, first + width, model_id, block), width // k, first // k
        if whole:
            these = slice(begin, begin + whole)
            windows = self._windows(total, plan.shift_list[these], (name, begin, whole))
            parts = block[:, : whole * k].unflatten(1, (whole, k)).unbind(1)
            terms = windows, list(parts), plan.signs[these], plan.sign_list[these]
            if block.device.type == "cpu":
                foreach_addcmul_(*terms)
            else:
                # There, a _foreach function may work on several at a time, and windows overlap.
                for window, part, signs, sign in zip(*terms, strict=True):
                    window.addcmul_(part, signs, value=sign)
        if whole * k < width:
            rest, shift = block[:, whole * k :], plan.shift_list[begin + whole]
            total[:, shift : shift + rest.shape[1]].addcmul_(
                rest, plan.signs[begin + whole][: rest.shape[1]], value=plan.sign_list[begin + whole]
            )

    def _windows(self, total: Tensor, shifts: Sequence[int], of: tuple[str, int, int]) -> list[Tensor]:
        """k columns of a sum from each shift on."""
        key = (total.data_ptr(), len(total), *of)
        if key in self._views:
            return self._views[key]
        windows = total.unfold(1, self.proj_dim, 1)
        views = [windows.select(1, shift) for shift in shifts]
        buffer = self._buffer
        kept = buffer is not None and buffer.untyped_storage().data_ptr() == total.untyped_storage().data_ptr()
        if kept and self._view_count + len(views) <= _MAX_VIEWS:
            self._views[key] = views
            self._view_count += len(views)
        return views

    def add_sparse_rows(self, total: Tensor, name: str, block: SparseRows, model_id: int) -> None:
        k, d = self.proj_dim, block.values.shape[-1]
        plan = self._plan(name, block.rows * d, model_id, block.values)
        columns, first = torch.arange(d, device=block.indices.device), block.indices * d
        if k % d == 0:
            # A row lies in one block, so that its signs and its buckets are runs.
            blocks, within = first // k, first % k
            signs = plan.pool.unfold(0, d, 1)[plan.offsets[blocks] + within] * plan.block_signs[blocks].unsqueeze(-1)
            buckets = (within + plan.shifts[blocks]).unsqueeze(-1) + columns
        else:
            places = first.unsqueeze(-1) + columns
            blocks = places // k
            within = places - blocks * k
            signs = plan.pool[plan.offsets[blocks] + within] * plan.block_signs[blocks]
            buckets = within + plan.shifts[blocks]
        total.scatter_add_(1, buckets.flatten(1), signs.mul_(block.values).flatten(1))

    def _drop_views(self) -> None:
        self._views.clear()
        self._view_count = 0

    def finish(self, total: Tensor) -> Tensor:
        if total is self._buffer:
            self._buffer_in_use = False
        return total[:, : self.proj_dim] + total[:, self.proj_dim :]
