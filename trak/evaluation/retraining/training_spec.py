"""Train one model and read its outputs on the targets."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from trak._utils.seeding import seeded
from trak._utils.typing import Array
from trak.evaluation.retraining.runs import TrainingRun
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.weights import device_of
from trak.tasks import Task

Train: TypeAlias = Callable[[Array, int], nn.Module]


@dataclass(frozen=True)
class RunResult:
    """What is kept of a model."""

    outputs: Array
    """f of each target, float64 (n_targets,)."""
    correct: Array
    """1 where a target is predicted right, 0 where not, NaN where the task can't tell: float64 (n_targets,)."""
    seconds: float


@dataclass(frozen=True)
class RunFailure:
    """Why there is no model."""

    error: str
    where: str
    """The traceback."""
    exception: Exception | None = None
    """Itself; None if it was raised in another process, where not every exception can be sent from."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "exception": None}


@dataclass(frozen=True)
class TrainingSpec:
    """What all runs have in common."""

    train: Train
    task: Task
    targets: Sequence[Batch]

    def measure(self, run: TrainingRun) -> RunResult | RunFailure:
        """Train and measure, by one torch thread, so that the numbers do not depend on who else is working.

        The global generators are seeded with the run's seed, for what `train` may forget to seed.
        Threads, generators and gradient mode are as found afterwards.
        """
        try:
            with _one_thread(), seeded(run.seed), torch.inference_mode(False), torch.enable_grad():
                start = time.perf_counter()
                model = self.train(run.indices.copy(), run.seed)
                seconds = time.perf_counter() - start
                if not isinstance(model, nn.Module):
                    raise TypeError(
                        f"train must return a torch.nn.Module, got {type(model).__name__}; let it return the trained "
                        "model"
                    )
                outputs, correct = self._outputs(model)
                return RunResult(outputs, correct, seconds)
        except Exception as error:  # whatever the user's code raises is reported with the run's name
            return RunFailure(f"{type(error).__name__}: {error}", traceback.format_exc(), error)

    @torch.no_grad()
    def _outputs(self, model: nn.Module) -> tuple[Array, Array]:
        model.eval()
        self.task.prepare(model)
        device = device_of(model)
        outputs: list[Array] = []
        correct: list[Array] = []
        for batch in self.targets:
            batch = batches.to_device(batch, device)
            output, size = self.task.output(model, batch), batches.size(batch)
            if output.shape != (size,):
                raise TypeError(
                    f"{type(self.task).__name__}.output must return one number for each of the batch's {size} "
                    f"examples, got shape {tuple(output.shape)}; take the sum or mean of what else there is"
                )
            if not torch.isfinite(output).all():
                self.task.check(model, batch)
                at = int((~torch.isfinite(output)).nonzero()[0])
                target = sum(len(piece) for piece in outputs) + at
                raise ValueError(
                    f"the output for target {target} is {float(output[at])}, not finite; look whether training "
                    "diverged, and use a smaller learning rate if it did"
                )
            right = self.task.correct(model, batch, output)
            outputs.append(output.double().cpu().numpy())
            correct.append(np.full(size, np.nan) if right is None else right.double().cpu().numpy())
        return np.concatenate(outputs), np.concatenate(correct)


@contextmanager
def _one_thread() -> Iterator[None]:
    found = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(found)
