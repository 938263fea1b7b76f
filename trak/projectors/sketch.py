"""Rotated-block CountSketch: a projection that costs one pass over the gradient."""

import torch
from torch import Tensor

from trak.projectors.base import Projector
from trak.projectors.blocks import SparseRows
from trak.projectors.hashing import random_words, stream_key

_POOL_BLOCKS = 65


class _Plan:
    """Sign, place in the pool of signs, and shift of each block of one parameter."""

    def __init__(self, seed: int, model_id: int, name: str, numel: int, proj_dim: int, pool: Tensor) -> None:
        blocks = torch.arange(-(-numel // proj_dim))
        rows = random_words(stream_key("sketch-blocks", seed, model_id, name), blocks)
        starts = random_words(stream_key("sketch-offsets", seed, model_id, name), blocks)
        self.block_signs = (rows & 1) * 2 - 1
        self.offsets = (starts & (2**63 - 1)) % ((_POOL_BLOCKS - 1) * proj_dim + 1)
        self.shifts = ((rows >> 1) & (2**62 - 1)) % proj_dim
        self.sign_list = self.block_signs.to(torch.float64).tolist()
        self.shift_list = self.shifts.tolist()
        self.pool = pool
        self.signs = [pool[offset : offset + proj_dim] for offset in self.offsets.tolist()]


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

    kind = "sketch"

    def __init__(self, proj_dim: int = 2048, seed: int = 0) -> None:
        super().__init__(proj_dim, seed)
        self._pools: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._plans: dict[tuple[str, int, torch.device, torch.dtype], _Plan] = {}
        self._cached_for: int | None = None

    def _plan(self, name: str, numel: int, model_id: int, like: Tensor) -> _Plan:
        if model_id != self._cached_for:
            self._pools.clear()
            self._plans.clear()
            self._cached_for = model_id
        where = (like.device, like.dtype)
        if where not in self._pools:
            words = random_words(
                stream_key("sketch-signs", self.seed, model_id), torch.arange(_POOL_BLOCKS * self.proj_dim)
            )
            self._pools[where] = ((words & 1) * 2 - 1).to(device=like.device, dtype=like.dtype)
        key = (name, numel, *where)
        if key not in self._plans:
            self._plans[key] = _Plan(self.seed, model_id, name, numel, self.proj_dim, self._pools[where])
        return self._plans[key]

    def new_sum(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        # Twice as wide, so that a rotated block is one contiguous write; finish() folds it.
        return torch.zeros(batch_size, 2 * self.proj_dim, device=device, dtype=dtype)

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int) -> None:
        k, numel = self.proj_dim, block.shape[1]
        plan, whole = self._plan(name, numel, model_id, block), numel // k
        if whole:
            windows = total.unfold(1, k, 1)
            torch._foreach_addcmul_(
                [windows.select(1, shift) for shift in plan.shift_list[:whole]],
                list(block[:, : whole * k].unflatten(1, (whole, k)).unbind(1)),
                plan.signs[:whole],
                plan.sign_list[:whole],
            )
        if whole * k < numel:
            rest, shift = block[:, whole * k :], plan.shift_list[whole]
            width = rest.shape[1]
            total[:, shift : shift + width].addcmul_(rest, plan.signs[whole][:width], value=plan.sign_list[whole])

    def add_sparse_rows(self, total: Tensor, name: str, block: SparseRows, model_id: int) -> None:
        k, d = self.proj_dim, block.values.shape[-1]
        plan = self._plan(name, block.rows * d, model_id, block.values)
        device = block.values.device
        places = block.indices.unsqueeze(-1) * d + torch.arange(d, device=device)
        blocks = places // k
        within = places - blocks * k
        signs = plan.pool[plan.offsets.to(device)[blocks] + within] * plan.block_signs.to(device)[blocks]
        buckets = within + plan.shifts.to(device)[blocks]
        total.scatter_add_(1, buckets.flatten(1), (block.values.to(total.dtype) * signs).flatten(1))

    def finish(self, total: Tensor) -> Tensor:
        return total[:, : self.proj_dim] + total[:, self.proj_dim :]
