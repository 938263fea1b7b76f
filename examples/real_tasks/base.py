"""What a real task is, and how its models are trained."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

import trak
from trak.inputs.batches import map_tensors

CACHE = Path(__file__).parent.parent / "output" / "data"
"""Where packages are unpacked."""


@dataclass(frozen=True)
class TrainingSpec:
    """How models of a task are trained."""

    load: Callable[[int, int], tuple[Any, Tensor]]
    """Of the numbers of training examples and targets: inputs, in a batch's form, and labels, of both in this order."""
    model: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    loss: Callable[[nn.Module, Any, Tensor], Tensor]
    """Of a batch's inputs and labels."""
    batch_size: int
    epochs: int

    def schedule(self, optimizer: torch.optim.Optimizer, size: int) -> torch.optim.lr_scheduler.LRScheduler:
        """Of the learning rate over all steps on a training set of some size."""
        steps = self.epochs * -(-size // self.batch_size)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], steps)

    def learning_rates(self, size: int) -> list[float]:
        """The mean of each epoch."""
        optimizer = self.optimizer([nn.Parameter(torch.zeros(1))])
        schedule, rates = self.schedule(optimizer, size), []
        for _ in range(self.epochs * -(-size // self.batch_size)):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return [float(np.mean(part)) for part in np.split(np.array(rates), self.epochs)]


@dataclass(frozen=True)
class Trainer:
    """Trains a model on some of the examples; a class, so that other processes can be told which function it is."""

    name: str
    """Of the task."""
    train_size: int
    targets: int
    relabelled: tuple[int, ...] | None = None
    """Labels of the training examples, if not their own."""

    def __call__(
        self, indices: Any, seed: int, after_epoch: Callable[[int, nn.Module], None] | None = None
    ) -> nn.Module:
        """Of indices (int64) into the training set, and a seed; `after_epoch` is shown the model, epochs from 1."""
        from real_tasks import TRAINING_SPECS

        spec = TRAINING_SPECS[self.name]
        inputs, labels = spec.load(self.train_size, self.targets)
        if self.relabelled is not None:
            labels = torch.tensor(self.relabelled)
        torch.manual_seed(seed)
        model, subset = spec.model().train(), torch.as_tensor(np.asarray(indices))
        optimizer = spec.optimizer(model.parameters())
        schedule = spec.schedule(optimizer, len(subset))
        for epoch in range(spec.epochs):
            for batch in subset[torch.randperm(len(subset))].split(spec.batch_size):
                optimizer.zero_grad()
                spec.loss(model, take(inputs, batch), labels[batch]).backward()
                optimizer.step()
                schedule.step()
            if after_epoch is not None:
                after_epoch(epoch + 1, model)
        return model.eval()


def take(inputs: Any, indices: Any) -> Any:
    """The examples at some indices."""
    return map_tensors(lambda t: t[indices], inputs)


@dataclass(frozen=True)
class RealTask:
    """A training set, targets, and how a model is trained on some of the training set."""

    name: str
    task: str | trak.tasks.Task
    train: Trainer
    labels: Tensor
    """Of the training examples."""
    target_labels: Tensor
    batches: Callable[[Tensor], list[Any]]
    """The training examples, under the labels given, in batches of 100."""
    targets: list[Any]
    representation: str
    """The layer before the last."""
    texts: tuple[list[str], list[str]] | None = None
    """Training examples and targets in words."""
    measured: trak.tasks.Task | None = None
    """Whose output is read off retrained models, if not `task`'s."""

    @property
    def config(self) -> dict[str, Any]:
        """Of the training, for the record."""
        from real_tasks import TRAINING_SPECS

        return {"epochs": TRAINING_SPECS[self.name].epochs}

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(self.labels)

    def make(self) -> nn.Module:
        """A model to load checkpoints into."""
        return self.train(np.arange(2), 0)


def checkpoints(task: RealTask, count: int, directory: Path) -> tuple[list[Path], float]:
    """Files of models trained on everything, each from a seed of its own, and the mean seconds that one took."""
    directory.mkdir(parents=True, exist_ok=True)
    paths, seconds = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in tqdm(range(count), desc="checkpoints", unit="model"):
        path = directory / f"{seed}.pt"
        if not path.exists():
            states: dict[int, Any] = {}
            start = time.process_time()
            task.train(np.arange(task.size), seed, partial(_keep, states))
            torch.save({"states": states, "seconds": time.process_time() - start}, path)
        seconds.append(torch.load(path)["seconds"])
        paths.append(path)
    torch.set_num_threads(threads)
    return paths, float(np.mean(seconds))


def _keep(states: dict[int, Any], epoch: int, model: nn.Module) -> None:
    states[epoch] = deepcopy(model.state_dict())


def weights(path: Path, epoch: int = -1) -> Any:
    """The state dict in a file of `checkpoints`: after an epoch, counted from 1, or from the end by -1, -2, ..."""
    states = torch.load(path)["states"]
    return states[epoch if epoch > 0 else len(states) + 1 + epoch]
