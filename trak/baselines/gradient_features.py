"""Projected gradients of a loader's examples, as they are needed: nothing is stored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trak.baselines.base import CheckpointBaseline, IndexedLoader, LoadedCheckpoint
from trak.gradients import (
    EngineSelector,
    ProjectedRows,
    check_engine_name,
    check_finite,
    check_memory_budget,
    featurize,
    select_parameters,
)
from trak.inputs import batches
from trak.projectors import Projector, SparseRows
from trak.tasks import Task


class GradientBaseline(CheckpointBaseline):
    """A baseline that uses the gradients of some parameters."""

    def __init__(self, grad_wrt: str | Iterable[str] | None, engine: str, memory_budget: int) -> None:
        self.grad_wrt = list(grad_wrt) if grad_wrt is not None and not isinstance(grad_wrt, str) else grad_wrt
        self.engine, self.memory_budget = check_engine_name(engine), int(check_memory_budget(memory_budget))

    def _parameters(self, model: nn.Module, task: Task, train: IndexedLoader) -> Sequence[str]:
        return tuple(select_parameters(model, self.grad_wrt))


class Gradients:
    """Gradients of f by `loaded.parameters`, for each example, projected."""

    def __init__(self, loaded: LoadedCheckpoint, engine: str, memory_budget: int) -> None:
        own = dict(loaded.model.named_parameters())
        self.shapes = {name: own[name].shape for name in loaded.parameters}
        self.sizes = {name: shape.numel() for name, shape in self.shapes.items()}
        wide = any(own[name].dtype == torch.float64 for name in loaded.parameters)
        self.dtype = torch.float64 if wide else torch.float32
        self._loaded, self._memory_budget = loaded, memory_budget
        self._engine = EngineSelector(engine, loaded.model, loaded.task, loaded.parameters, memory_budget)

    def rows(self, projector: Projector, data: IndexedLoader) -> Iterator[tuple[int, ProjectedRows]]:
        """The checked rows of all examples in order, a piece of a batch at a time, with the index of the first."""
        projector.bind(self.shapes)
        step = max(1, self._memory_budget // 4 // (self.dtype.itemsize * projector.proj_dim))
        for start, batch in data:
            engine = self._engine(batch)
            for first in range(0, batches.size(batch), step):
                piece = batches.take(batch, first, first + step)
                rows = featurize(engine, projector, piece, self._loaded.model_id, self._memory_budget, self.dtype)
                indices = range(start + first, start + first + len(rows.features))
                check_finite(rows, engine, piece, indices, f"{data.what}, checkpoint {self._loaded.model_id}")
                yield start + first, rows


class Directions(Projector):
    """x ↦ Vᵀx for given directions V, so that ⟨∇f, v⟩ of many examples comes without their gradients as a whole."""

    name = "directions"

    def __init__(self, directions: Tensor, sizes: Mapping[str, int]) -> None:
        """The directions are V, shape (p, m), the parameters one after the other, whose elements `sizes` counts."""
        super().__init__(directions.shape[1])
        self._parts = dict(zip(sizes, directions.split(list(sizes.values())), strict=True))

    def add(self, total: Any, name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        total.addmm_(block, self._parts[name][first : first + block.shape[1]])

    def add_sparse_rows(self, total: Any, name: str, block: SparseRows, model_id: int) -> None:
        rows = self._parts[name].unflatten(0, (block.rows, -1))
        for i in range(len(block)):
            total[i] += block.values[i].flatten().to(total.dtype) @ rows[block.indices[i]].flatten(0, 1)
