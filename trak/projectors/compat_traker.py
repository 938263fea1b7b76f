"""The projector names of the published package (traker 0.3.2), over the projections here."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from trak._utils.messages import suggest
from trak.projectors.base import Projector
from trak.projectors.dense import Gaussian, Identity, Rademacher
from trak.projectors.gradient_blocks import OuterProducts


class ProjectionType(str, Enum):
    """Distribution of a dense projection's entries."""

    normal = "normal"
    rademacher = "rademacher"


class _Published:
    def free_memory(self) -> None:
        """Nothing is held."""


class AbstractProjector(_Published, Projector):
    """Base of projectors written for the published package: `project` takes whole gradients."""

    def __init__(
        self, grad_dim: int, proj_dim: int, seed: int, proj_type: str, device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(proj_dim, seed)
        self.grad_dim, self.proj_type, self.device = grad_dim, proj_type, device

    @abstractmethod
    def project(self, grads: Tensor | Mapping[str, Tensor], model_id: int = 0) -> Tensor: ...

    def new_sum(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> "_WholeGradients":
        return _WholeGradients(batch_size)

    def add_outer_products(self, total: "_WholeGradients", name: str, block: OuterProducts, model_id: int) -> None:
        self.add(total, name, block.dense().flatten(1), model_id)

    def add(self, total: "_WholeGradients", name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        total.add(name, block)
        self._model_id = model_id

    def finish(self, total: "_WholeGradients") -> Tensor:
        return self.project(total.blocks, self._model_id)


class _WholeGradients:
    """Whole gradients by parameter, or those of some of the examples."""

    def __init__(self, examples: int, blocks: dict[str, Tensor] | None = None, part: slice = slice(None)) -> None:
        self.blocks, self._examples, self._part = {} if blocks is None else blocks, examples, part

    def __getitem__(self, part: slice) -> "_WholeGradients":
        return _WholeGradients(self._examples, self.blocks, part)

    def add(self, name: str, block: Tensor) -> None:
        if name not in self.blocks:
            self.blocks[name] = block.new_zeros(self._examples, block.shape[1])
        self.blocks[name][self._part] += block


class BasicProjector(_Published, Projector):
    """A dense projection with the published constructor; `project` has entries of variance 1."""

    def __init__(
        self,
        grad_dim: int,
        proj_dim: int,
        seed: int,
        proj_type: str | ProjectionType,
        device: str | torch.device = "cpu",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(proj_dim, seed)
        kind = proj_type.value if isinstance(proj_type, ProjectionType) else proj_type
        kinds: dict[str, type[Projector]] = {"normal": Gaussian, "rademacher": Rademacher}
        if kind not in kinds:
            raise ValueError(f"unknown proj_type {kind!r}: {suggest(str(kind), kinds)}")
        self.grad_dim, self.proj_type, self.device = grad_dim, proj_type, device
        self._dense = kinds[kind](proj_dim, seed)
        self.name = self._dense.name  # type: ignore[misc]

    def add(self, total: Tensor, name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        self._dense.add(total, name, block, model_id, first)

    def project(self, grads: Tensor | Mapping[str, Tensor], model_id: int = 0) -> Tensor:
        """Projection without the factor 1/√proj_dim, as published."""
        return super().project(grads, model_id) * math.sqrt(self.proj_dim)


class CudaProjector(BasicProjector):
    """The same numbers on whatever device the gradients are; no CUDA extension is needed."""


class ChunkedCudaProjector(CudaProjector):
    """The same; gradients are projected a parameter at a time in any case."""


class BasicSingleBlockProjector(BasicProjector):
    """The same; matrices are generated in blocks in any case."""


class NoOpProjector(_Published, Identity):
    """`Identity` with the published constructor, whose arguments decide nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
