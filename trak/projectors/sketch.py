"""Rotated-block CountSketch: a projection that costs one pass over the gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trak.projectors.base import Projector
from trak.projectors.hashing import random_words, stream_key

_POOL_BLOCKS = 65


@dataclass(frozen=True)
class _Plan:
    block_signs: list[float]
    offsets: list[int]
    shifts: list[int]


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
        self._plans: dict[tuple[str, int], _Plan] = {}
        self._cached_for: int | None = None

    def _pool_and_plan(self, name: str, numel: int, model_id: int, like: Tensor) -> tuple[Tensor, _Plan]:
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
        if (name, numel) not in self._plans:
            blocks = torch.arange(-(-numel // self.proj_dim))
            rows = random_words(stream_key("sketch-blocks", self.seed, model_id, name), blocks)
            starts = random_words(stream_key("sketch-offsets", self.seed, model_id, name), blocks)
            self._plans[name, numel] = _Plan(
                block_signs=((rows & 1) * 2 - 1).to(torch.float64).tolist(),
                offsets=((starts & (2**63 - 1)) % ((_POOL_BLOCKS - 1) * self.proj_dim + 1)).tolist(),
                shifts=(((rows >> 1) & (2**62 - 1)) % self.proj_dim).tolist(),
            )
        return self._pools[where], self._plans[name, numel]

    def new_sum(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        # Twice as wide, so that a rotated block is one contiguous write; finish() folds it.
        return torch.zeros(batch_size, 2 * self.proj_dim, device=device, dtype=dtype)

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int) -> None:
        k, numel = self.proj_dim, block.shape[1]
        pool, plan = self._pool_and_plan(name, numel, model_id, block)
        for b, (sign, offset, shift) in enumerate(zip(plan.block_signs, plan.offsets, plan.shifts, strict=True)):
            piece = block[:, b * k : min((b + 1) * k, numel)]
            width = piece.shape[1]
            total[:, shift : shift + width].addcmul_(piece, pool[offset : offset + width], value=sign)

    def finish(self, total: Tensor) -> Tensor:
        return total[:, : self.proj_dim] + total[:, self.proj_dim :]
