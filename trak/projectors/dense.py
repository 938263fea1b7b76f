"""Dense random projections, the method's reference (Johnson-Lindenstrauss; TRAK, section 3.2)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trak._utils.counter_random import random_normals, random_signs, stream_key
from trak.projectors.base import Projector, register_projector
from trak.projectors.triton_dispatch import kernels_for

_MAX_ENTRIES = 1 << 22


class _Dense(Projector):
    """x ↦ Pᵀx/√k with i.i.d. entries of P, generated a block of rows at a time and dropped."""

    _entries: Callable[[int, Tensor, int], Tensor]

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        key = stream_key(self.name, self.seed, model_id, name)
        rows_at_once = max(1, _MAX_ENTRIES // self.proj_dim)
        for start in range(0, block.shape[1], rows_at_once):
            rows = first + torch.arange(start, min(start + rows_at_once, block.shape[1]), device=block.device)
            matrix = type(self)._entries(key, rows, self.proj_dim).to(block.dtype)
            total.addmm_(block[:, start : start + rows_at_once], matrix, alpha=1 / math.sqrt(self.proj_dim))


@register_projector("rademacher")
class Rademacher(_Dense):
    """Dense projection with entries ±1/√k."""

    _entries = staticmethod(random_signs)

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        kernels = kernels_for(block) if block.dtype == torch.float32 else None
        if kernels is None:
            super().add(total, name, block, model_id, first)
        else:
            kernels.add_rademacher(total, block, stream_key(self.name, self.seed, model_id, name), first)


@register_projector("gaussian")
class Gaussian(_Dense):
    """Dense projection with normal entries of variance 1/k."""

    _entries = staticmethod(random_normals)
