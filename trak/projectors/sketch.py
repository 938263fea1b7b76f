"""Rotated-block CountSketch: a projection that costs one pass over the gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trak.projectors.base import Projector
from trak.projectors.hashing import random_words, stream_key


@dataclass(frozen=True)
class _Plan:
    signs: Tensor
    block_signs: list[float]
    shifts: list[int]


class Sketch(Projector):
    """CountSketch (Charikar, Chen & Farach-Colton, 2002) with streaming bucket choice.

    A parameter's flat gradient is cut into blocks of k. Coordinate j of block b gets the sign
    s_j·t_b and goes to bucket (j + r_b) mod k, with s, t and r from a counter-based hash. Two
    coordinates of one block never share a bucket, two of different blocks do with probability
    1/k. A product of four signs over two colliding pairs is constant only if the pairs are equal
    or, for even k, k/2 apart in the same two blocks; this adds a factor of at most 1 + 1/k to the
    variance of fully independent signs and makes the random numbers k + p/k instead of p.

    Every product is with ±1 and every sum runs in block order, so the features of an example are
    the same bits on every device and in every batch.
    """

    kind = "sketch"

    def __init__(self, proj_dim: int = 2048, seed: int = 0) -> None:
        super().__init__(proj_dim, seed)
        self._plans: dict[tuple[str, int, torch.device, torch.dtype], _Plan] = {}
        self._plans_for: int | None = None

    def _plan(self, name: str, numel: int, model_id: int, like: Tensor) -> _Plan:
        if model_id != self._plans_for:
            self._plans.clear()
            self._plans_for = model_id
        key = (name, numel, like.device, like.dtype)
        if key not in self._plans:
            blocks = -(-numel // self.proj_dim)
            columns = random_words(
                stream_key("sketch-signs", self.seed, model_id, name), torch.arange(min(self.proj_dim, numel))
            )
            rows = random_words(stream_key("sketch-blocks", self.seed, model_id, name), torch.arange(blocks))
            self._plans[key] = _Plan(
                signs=((columns & 1) * 2 - 1).to(device=like.device, dtype=like.dtype),
                block_signs=((rows & 1) * 2 - 1).to(torch.float64).tolist(),
                shifts=(((rows >> 1) & (2**62 - 1)) % self.proj_dim).tolist(),
            )
        return self._plans[key]

    def new_sum(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        # Twice as wide, so that a rotated block is one contiguous write; finish() folds it.
        return torch.zeros(batch_size, 2 * self.proj_dim, device=device, dtype=dtype)

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int) -> None:
        k, numel = self.proj_dim, block.shape[1]
        plan = self._plan(name, numel, model_id, block)
        for b, (sign, shift) in enumerate(zip(plan.block_signs, plan.shifts, strict=True)):
            piece = block[:, b * k : min((b + 1) * k, numel)]
            width = piece.shape[1]
            total[:, shift : shift + width].addcmul_(piece, plan.signs[:width], value=sign)

    def finish(self, total: Tensor) -> Tensor:
        return total[:, : self.proj_dim] + total[:, self.proj_dim :]
