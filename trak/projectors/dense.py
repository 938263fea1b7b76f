"""Dense random projections, the method's reference (Johnson-Lindenstrauss; TRAK, section 3.2), and none at all."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trak._utils.counter_random import random_normals, random_signs, stream_key
from trak.projectors.base import Projector, kernels_for, register_projector

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


@register_projector("identity")
class Identity(Projector):
    """x ↦ x, parameters in the model's order; for small models and for checking the others."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(1, seed)
        self._sizes: dict[str, int] = {}

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> None:
        self._sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        self.proj_dim = sum(self._sizes.values())

    def describe(self) -> dict[str, Any]:
        return {"kind": self.name}

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        stop = first + block.shape[1]
        if stop > self._sizes.get(name, 0):
            raise ValueError(
                f"gradients of {name!r} have {stop} elements, expected {self._sizes.get(name)}; call bind() with the "
                "model's parameter shapes first"
            )
        names = list(self._sizes)
        before = sum(self._sizes[other] for other in names[: names.index(name)])
        total[:, before + first : before + stop] += block
