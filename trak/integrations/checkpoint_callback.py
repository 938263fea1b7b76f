"""Base of the callbacks of all trainers."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from trak.attribution.api import attribute
from trak.attribution.results import StoredAttribution
from trak.inputs.checkpoints import load_into
from trak.inputs.datasets import as_loader
from trak.inputs.fsdp import is_sharded
from trak.inputs.loaders import sequential_loader
from trak.inputs.weights import device_of
from trak.inputs.wrappers import unwrap_model
from trak.integrations.data_fingerprint import DataFingerprint
from trak.integrations.run_checkpoints import RunCheckpoints
from trak.tasks import Task, make_task


class CheckpointCallback:
    """Saves the checkpoints of a training run, and attributes the last one if a task is given."""

    attribution: StoredAttribution | None = None
    """The attribution by the run's last checkpoint, once it ended; None if no task was given."""
    _reused = False
    """Whether the run ended before, and is not trained again."""

    def __init__(
        self,
        folder: str | Path,
        run: int = 0,
        *,
        epochs: bool | Iterable[int] = False,
        replace: bool = False,
        reuse: bool = False,
        task: Task | str | Any = None,
        train: Any = None,
        targets: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            folder: shared by the runs that are attributed together; the checkpoints are FOLDER/run-RUN/final.pt and
                epoch-1.pt, ..., state dicts by the names of the bare model.
            run: the run's number, from 0.
            epochs: epochs, counted from 1, whose checkpoints are saved besides the last; True for all.
            replace: whether a finished run of this number is deleted and trained again.
            reuse: whether a finished run of this number is not trained again: the model gets its last weights, and
                their attribution resumes in the run's store.
            task: if given, the last checkpoint is attributed when training ends, see `attribution`.
            train: what to attribute to, by default the trainer's training data; a loader in order, or a data set.
            targets: what to attribute, by default the trainer's evaluation data; a loader, or a data set, which is
                collated as the training data.
            batch_size: examples of a batch, by default the trainer's.
            options: of `trak.attribute`; save_dir is FOLDER/run-RUN/store by default.

        Raises:
            ValueError, TypeError: for invalid numbers, an unknown task, options without a task, or both replace
                and reuse.
        """
        self.run = RunCheckpoints(folder, run, epochs, replace, reuse)
        if task is None and (given := [*options, *(["targets"] if targets is not None else [])]):
            raise TypeError(f"{given[0]} is for an attribution when training ends, which needs task=; add it")
        self._task = None if task is None else make_task(task)
        self._train, self._targets, self._batch_size, self._options = train, targets, batch_size, options

    def _start(self, model: nn.Module, train: Any, resumed: bool, write: bool) -> bool:
        """Check the run, its model and its data, and clear an earlier attempt; or load the weights of a reused run, and
        return True, since training has to stop."""
        if any(hasattr(p, "ds_id") for p in model.parameters()):
            raise ValueError(
                f"{type(model).__name__} has its weights spread over ranks by DeepSpeed (ZeRO-3); use FSDP2, or ZeRO-2"
            )
        is_sharded(unwrap_model(model))  # raises where the state dict is not the model's
        if self._task is not None and self._train is None:
            sequential_loader(train, "the trainer's loader of train", self._batch_size)
        self._reused = self.run.start(resumed, write, DataFingerprint.from_loader(train))
        self._restore(model)
        return self._reused

    def _restore(self, model: nn.Module) -> None:
        """Give the model the weights of the run that is reused, if one is."""
        if self._reused:
            load_into(unwrap_model(model), self.run.path())

    def _check_has_targets(self, evaluates: bool, remedy: str) -> None:
        if self._task is not None and self._targets is None and not evaluates:
            raise ValueError(
                f"task={self._task.describe()['name']!r} was given, but the trainer evaluates nothing that could be "
                f"attributed; pass targets=, {remedy}"
            )

    def _finish(
        self, model: nn.Module, train: Any, evaluated: Any, collate_fn: Callable[..., Any] | None, write: bool
    ) -> None:
        """Save the last checkpoint unless the run is reused, and attribute it if a task is given."""
        if self._reused:
            self._restore(model)
        else:
            self.run.save(model, write=write)
        if self._task is None:
            return
        options = {"save_dir": self.run.store, "device": device_of(model), **self._options}
        loaders: list[Any] = []
        for what, given, own in (("train", self._train, train), ("targets", self._targets, evaluated)):
            if given is not None:
                loaders.append(as_loader(given, model, what, self._batch_size, collate_fn))
            elif own is not None:
                loaders.append(sequential_loader(own, f"the trainer's loader of {what}", self._batch_size))
            else:
                raise ValueError(f"the trainer never loaded its {what}, which can't be attributed so; pass {what}=")
        # Every rank has the weights, the file may not be there yet.
        self.attribution = attribute(model, self._task, model, *loaders, **options)
