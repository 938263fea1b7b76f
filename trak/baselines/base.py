"""What every baseline promises, and what those that score one checkpoint at a time share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from trak.attribution.results import ArrayAttribution, Attribution
from trak.gradients import differentiable
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.checkpoints import Checkpoint, load_into, preserve_weights
from trak.inputs.loaders import count_examples
from trak.inputs.weights import device_of
from trak.inputs.wrappers import unwrap_model
from trak.tasks import Task, make_task
from trak.tasks.base import json_settings


class Baseline(ABC):
    """Another way to score every training example for every target.

    The contract: scores of shape (n_train, n_targets), finite, the same for every batch size and in
    every run; positive means that training on the example pushed the target's output f up. The
    model is left as it was found, and nothing else is changed either: no random state, no flag.
    """

    name: ClassVar[str]

    @abstractmethod
    def attribute(
        self,
        model: nn.Module,
        task: Task | str | Any,
        checkpoints: Checkpoint | Sequence[Checkpoint],
        train: Iterable[Batch],
        targets: Iterable[Batch],
        *,
        progress: bool = True,
    ) -> Attribution:
        """Score the examples of `train` for the outputs on `targets`.

        Args:
            model: the model, on the device to compute on.
            task: a task or its name, see `trak.tasks.TASKS`.
            checkpoints: one or several, as for `trak.attribute`.
            train, targets: yield the batches in the same order on every pass.
            progress: whether to show progress bars.

        Raises:
            ValueError, TypeError: for what can't be scored; the message says why and what to do.
            ImportError: if a package is needed that is not installed.
        """

    def describe(self) -> dict[str, Any]:
        """Name and settings, for a record."""
        return {"name": self.name, "settings": json_settings(self)}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.describe()["settings"].items())
        return f"{type(self).__name__}({settings})"


class AttributionData:
    """A loader's batches, ready for autograd on the model's device, each with the index of its first example."""

    def __init__(self, loader: Iterable[Batch], what: str, device: torch.device) -> None:
        """
        Args:
            loader: yields batches.
            what: what the user calls it.
            device: where to put them.

        Raises:
            ValueError, TypeError: as `trak.inputs.loaders.count_examples`.
        """
        self.what, self.size = what, count_examples(loader, what)
        self._loader, self._device = loader, device
        self.bar: Any = None

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        start = 0
        for batch in self._loader:
            count = batches.size(batch)
            self._check(start + count <= self.size, start + count)
            yield start, batches.to_device(batch, self._device)
            start += count
            if self.bar is not None:
                self.bar.update(count)
        self._check(start == self.size, start)

    def _check(self, right: bool, found: int) -> None:
        if not right:
            raise ValueError(
                f"{self.what} yielded {found} examples, expected {self.size} as in the first pass; pass a loader that "
                "yields the same examples on every pass"
            )


@dataclass(frozen=True)
class CheckpointRun:
    """One checkpoint, loaded into the model, and the data."""

    model: nn.Module
    """In evaluation mode, gradients required of `parameters` alone."""
    task: Task
    model_id: int
    """The checkpoint's position."""
    train: AttributionData
    targets: AttributionData
    parameters: tuple[str, ...]
    """Names of what is differentiated by."""

    @property
    def where(self) -> str:
        """The checkpoint, in words."""
        return f"checkpoint {self.model_id}"


class CheckpointBaseline(Baseline):
    """A baseline whose scores are the mean over checkpoints of what each gives alone."""

    def attribute(
        self,
        model: nn.Module,
        task: Task | str | Any,
        checkpoints: Checkpoint | Sequence[Checkpoint],
        train: Iterable[Batch],
        targets: Iterable[Batch],
        *,
        progress: bool = True,
    ) -> Attribution:
        model = unwrap_model(model)
        task = self._check_task(make_task(task))
        device = device_of(model)
        data = AttributionData(train, "train", device), AttributionData(targets, "targets", device)
        parameters = self._parameters(model, task, data[0])
        scores = np.zeros((data[0].size, data[1].size), np.float32)
        with preserve_weights(model, checkpoints) as several:
            weights, total = self._weights(len(several)), self._total(data[0].size, data[1].size)
            bar = tqdm(total=total and total * len(several), desc=self.name, unit="ex", disable=not progress)
            with bar, torch.inference_mode(False):
                for member in data:
                    member.bar = bar
                for model_id, (checkpoint, weight) in enumerate(zip(several, weights, strict=True)):
                    load_into(model, checkpoint)
                    with torch.enable_grad(), differentiable(model, parameters):
                        task.prepare(model)
                        run = CheckpointRun(model, task, model_id, *data, tuple(parameters))
                        for row, column, block in self._blocks(run):
                            part = block.detach().mul(weight).cpu().numpy()
                            scores[row : row + part.shape[0], column : column + part.shape[1]] += part
        return ArrayAttribution(scores, name=self.name)

    @abstractmethod
    def _blocks(self, run: CheckpointRun) -> Iterator[tuple[int, int, Tensor]]:
        """Every score of one checkpoint once, as (first training example, first target, block of scores)."""

    def _weights(self, checkpoints: int) -> Sequence[float]:
        """The factor of each checkpoint's scores."""
        return [1 / checkpoints] * checkpoints

    def _total(self, train: int, targets: int) -> int | None:
        """How many examples one checkpoint passes through the model, if that is known before."""
        return train + targets

    def _parameters(self, model: nn.Module, task: Task, train: AttributionData) -> Sequence[str]:
        """Names of the parameters to differentiate by."""
        return ()

    def _check_task(self, task: Task) -> Task:
        """The task, unless it can't be scored."""
        return task
