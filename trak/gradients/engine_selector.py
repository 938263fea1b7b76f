"""The engine of a checkpoint, batch by batch."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from trak._utils.messages import shorten_names
from trak.gradients.base import Engine
from trak.gradients.engine_choice import choose_engine
from trak.gradients.verification import misassigned
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.fsdp import is_sharded
from trak.tasks import Task


class EngineSelector:
    """Chooses by the first batch, again by the first of two examples or more, and compares a little of the 4th, 16th,
    64th ... batch with autograd: a model may treat examples otherwise where they are longer, or more."""

    def __init__(
        self,
        name: str,
        model: nn.Module,
        task: Task,
        parameters: Sequence[str],
        memory_budget: int,
        warned: set[str] | None = None,
    ) -> None:
        self._name, self._model, self._task, self._memory_budget = name, model, task, memory_budget
        self._choose = partial(choose_engine, name, model, task, parameters, warned=warned, memory_budget=memory_budget)
        self.engine: Engine | None = None
        self._seen = 0
        """Batches of two examples or more."""

    def __call__(self, batch: Batch) -> Engine:
        """The engine for a batch, on a model whose state is that of `differentiable`.

        Raises:
            ValueError: as `choose_engine`, and if the engine that "auto" chose is wrong for a later batch.
        """
        engine, several = self.engine, batches.size(batch) > 1
        self._seen += several
        if engine is None or (several and self._seen == 1 and not is_sharded(self._model)):
            with torch.no_grad():
                self._task.check(self._model, batch)
            engine = self.engine = self._choose(batch=batch)
        elif (
            several
            and self._name == "auto"
            and math.log2(self._seen) % 2 == 0
            and not is_sharded(self._model)
            and (wrong := misassigned(engine, batch, self._memory_budget, examples=8))
        ):
            raise ValueError(
                f"gradients of {shorten_names(wrong, 2)} are given to the wrong examples of a batch, though not in the "
                f"first one: {type(self._model).__name__} changes the order of examples, as by sorting them by length; "
                "use engine='loop', and another save_dir, since rows stored of earlier batches may be wrong, too"
            )
        return engine
