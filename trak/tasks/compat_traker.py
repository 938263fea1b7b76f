"""Adapter for tasks written for traker 0.3.2."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.fsdp import is_sharded
from trak.tasks.base import Task, json_settings


class TrakerTaskAdapter(Task):
    """A task that calls `get_output(model, weights, buffers, *example)`, without a batch dimension, and
    `get_out_to_loss_grad(model, weights, buffers, batch)`. Its curvature is unknown, so W = I."""

    has_loss_temperature = False

    def __init__(self, modelout: Any) -> None:
        self._modelout = modelout

    def prepare(self, model: nn.Module) -> None:
        """Raise a ValueError for a model whose weights can't be handed to the task."""
        if is_sharded(model):
            raise ValueError(
                f"{type(self._modelout).__name__}.get_output is given all weights, which no rank has of a model "
                "sharded by fully_shard; write a trak.tasks.Task, which calls the model"
            )

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        weights, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        members = _members(batch)
        rows = []
        for i in range(batches.size(batch)):
            example = batches.map_tensors(lambda t: t[0] if t.ndim else t, batches.take(members, i, i + 1))
            rows.append(self._modelout.get_output(model, weights, buffers, *example).reshape(()))
        return torch.stack(rows)

    def weights(self, model: nn.Module, batch: Batch, output: Tensor) -> tuple[Tensor, Tensor]:
        weights, buffers = dict(model.named_parameters()), dict(model.named_buffers())
        with torch.no_grad():
            q = self._modelout.get_out_to_loss_grad(model, weights, buffers, _members(batch)).reshape(-1)
        if q.shape != output.shape:
            raise TypeError(
                f"{type(self._modelout).__name__}.get_out_to_loss_grad must return one number for each of the "
                f"{len(output)} examples, got {q.numel()}; return them as a vector"
            )
        return q, torch.ones_like(q)

    def describe(self) -> dict[str, Any]:
        return {"name": type(self._modelout).__qualname__, "settings": json_settings(self._modelout)}


def _members(batch: Batch) -> Sequence[Any]:
    """A batch in the form of traker 0.3.2: its members in order."""
    return list(batch.values()) if isinstance(batch, Mapping) else batch
