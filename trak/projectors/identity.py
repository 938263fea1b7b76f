"""No projection at all: the features are the gradient itself."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trak.projectors.base import Projector, register_projector


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
        if first + block.shape[1] > self._sizes.get(name, 0):
            raise ValueError(
                f"gradients of {name!r} have {first + block.shape[1]} elements, expected {self._sizes.get(name)}; "
                "call bind() with the model's parameter shapes first"
            )
        start = first
        for other, size in self._sizes.items():
            if other == name:
                total[:, start : start + block.shape[1]] += block
                return
            start += size

    def new_sum(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.zeros(batch_size, self.proj_dim, device=device, dtype=dtype)
