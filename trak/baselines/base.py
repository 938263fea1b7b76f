"""Interface of baselines, and the base class of those that score one checkpoint at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from trak._utils.registry import Registry
from trak._utils.typing import Array
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


class BaselineInputs(NamedTuple):
    """The arguments of `Baseline.attribute`."""

    model: Any
    task: Any
    checkpoints: Any
    train: Iterable[Batch]
    targets: Iterable[Batch]
    progress: bool


class Baseline(ABC):
    """Another way to score every training example for every target.

    The contract: scores of shape (n_train, n_targets), finite, the same for every batch size and in
    every run; positive means that training on the example pushed the target's output f up. The
    model is left as it was found, and nothing else is changed either: no random state, no flag.
    """

    name: ClassVar[str]

    def attribute(
        self,
        model: nn.Module | None,
        task: Task | str | Any,
        checkpoints: Checkpoint | Sequence[Checkpoint],
        train: Iterable[Batch],
        targets: Iterable[Batch],
        *,
        progress: bool = True,
    ) -> Attribution:
        """Score the examples of `train` for the outputs on `targets`.

        Args:
            model: the model, on the device to compute on; None for a baseline that does not use it.
            task: a task or its name, see `trak.tasks.TASKS`.
            checkpoints: one or several, as for `trak.attribute`.
            train, targets: yield the batches in the same order on every pass.
            progress: whether to show progress bars.

        Raises:
            ValueError, TypeError: for inputs that cannot be scored; the message says why and what to do.
            ImportError: if a package is needed that is not installed.
        """
        scores = self.compute_scores(BaselineInputs(model, task, checkpoints, train, targets, progress))
        return ArrayAttribution(scores, name=self.name)

    @abstractmethod
    def compute_scores(self, inputs: BaselineInputs) -> Array:
        """Scores of shape (n_train, n_targets); raises the errors of `attribute`."""

    def describe(self) -> dict[str, Any]:
        """Name and settings, for a record."""
        return {"name": self.name, "settings": json_settings(self)}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.describe()["settings"].items())
        return f"{type(self).__name__}({settings})"


BASELINES = Registry(Baseline, "baseline")
register_baseline = BASELINES.register


class IndexedLoader:
    """A loader's batches, ready for autograd on the model's device, each with the index of its first example."""

    def __init__(self, loader: Iterable[Batch], what: str, device: torch.device) -> None:
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
class LoadedCheckpoint:
    """One checkpoint, loaded into the model, and the data.

    The model is in evaluation mode; it requires gradients of `parameters` alone, those to differentiate by.
    """

    model: nn.Module
    task: Task
    model_id: int
    train: IndexedLoader
    targets: IndexedLoader
    parameters: tuple[str, ...]


class CheckpointBaseline(Baseline):
    """A baseline whose scores are the mean over checkpoints of what each gives alone."""

    _one_pass: ClassVar[bool] = True
    """Whether each example passes the model once for each checkpoint, so that progress has a known end."""

    def compute_scores(self, inputs: BaselineInputs) -> Array:
        model = unwrap_model(inputs.model)
        task = self._check_task(make_task(inputs.task))
        device = device_of(model)
        data = IndexedLoader(inputs.train, "train", device), IndexedLoader(inputs.targets, "targets", device)
        parameters = self._parameters(model, task, data[0])
        scores = np.zeros((data[0].size, data[1].size), np.float32)
        with preserve_weights(model, inputs.checkpoints) as several:
            weights = self._weights(len(several))
            total = sum(scores.shape) * len(several) if self._one_pass else None
            bar = tqdm(total=total, desc=self.name, unit="ex", disable=not inputs.progress)
            with bar, torch.inference_mode(False):
                for member in data:
                    member.bar = bar
                for model_id, (checkpoint, weight) in enumerate(zip(several, weights, strict=True)):
                    load_into(model, checkpoint)
                    with torch.enable_grad(), differentiable(model, parameters):
                        task.prepare(model)
                        loaded = LoadedCheckpoint(model, task, model_id, *data, tuple(parameters))
                        for row, column, block in self.blocks(loaded):
                            part = block.detach().mul(weight).cpu().numpy()
                            scores[row : row + part.shape[0], column : column + part.shape[1]] += part
        return scores

    @abstractmethod
    def blocks(self, loaded: LoadedCheckpoint) -> Iterator[tuple[int, int, Tensor]]:
        """Every score of one checkpoint once, as (first training example, first target, block of scores)."""

    def _weights(self, checkpoints: int) -> Sequence[float]:
        """The factor of each checkpoint's scores."""
        return [1 / checkpoints] * checkpoints

    def _parameters(self, model: nn.Module, task: Task, train: IndexedLoader) -> Sequence[str]:
        """Names of the parameters to differentiate by."""
        return ()

    def _check_task(self, task: Task) -> Task:
        """The task, if it can be scored."""
        return task
