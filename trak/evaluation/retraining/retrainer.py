"""Train models on given subsets of the training set, each once and for all."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from trak._utils.typing import Array
from trak._utils.validation import check_count, check_option
from trak.distributed import Ray
from trak.evaluation.retraining.run_store import ModelStore, RetrainingConfig
from trak.evaluation.retraining.runs import TrainingRun, checked_run
from trak.evaluation.retraining.training_spec import RunFailure, Train, TrainingSpec
from trak.evaluation.retraining.workers import measure_all
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.datasets import is_dataset
from trak.inputs.loaders import count_examples
from trak.store.location import Location
from trak.tasks import Task, make_task


class RetrainingError(RuntimeError):
    """A model could not be trained or measured."""


class Retrained(NamedTuple):
    """What is known of retrained models."""

    outputs: Array
    """f, float64 (runs, n_targets)."""
    correct: Array | None
    """Whether each target was predicted right, bool (runs, n_targets); None if the task does not tell."""
    seconds: Array
    """That each training took, float64 (runs,)."""


def retrain_on(
    runs: Sequence[tuple[Any, int] | TrainingRun],
    train: Train,
    task: Task | str | Any,
    targets: Iterable[Batch],
    *,
    train_set_size: int,
    save_dir: Location,
    config: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    backend: str | Ray = "loky",
    progress: bool = True,
) -> Retrained:
    """Outputs of models trained on given subsets; what `save_dir` has already is not trained again.

    A model is kept as soon as it is done. Kill the process at any time and run the same script again: at most the
    models under way are trained again, and outputs are bit-identical to those of an uninterrupted run, on the same kind
    of machine and if `train` is deterministic.

    Args:
        runs: (indices of the training examples, seed) of each model; the same one may be there twice.
        train: called with indices, int64 and sorted, and the seed, an int below 2³²; returns the model, trained from
            scratch. PyTorch's, NumPy's and Python's global generators are seeded with the seed before. It may be
            defined in a notebook; whatever it refers to is sent to the other processes once.
        task: a task or its name, see `trak.tasks.TASKS`.
        targets: yields the batches whose outputs are wanted, in order; of a data set
            `trak.inputs.datasets.as_loader(targets, model)` does. The model is in eval mode for them.
        train_set_size: number of training examples.
        save_dir: directory or URL of the models' outputs.
        config: anything that describes training (JSON): learning rate, epochs, data set, version of the code. It is
            recorded and compared, so that models trained otherwise are never mixed.
        jobs: number of processes, 1 for this one alone; by default as many as there are cores. Each has one torch
            thread.
        backend: "loky" (processes on this machine), "ray" or a `trak.distributed.Ray` (a Ray cluster, where `jobs`
            counts its tasks).
        progress: whether to show a progress bar.

    Raises:
        RetrainingError: if a training run fails, or an output is not finite; names the run. Models that are done stay.
        ValueError: for invalid indices, or if `save_dir` was made with another configuration; names both values.
        TypeError: for other invalid arguments.
        ImportError: if joblib, or Ray for "ray", is not installed.
    """
    return Retrainer(train, task, targets, train_set_size, save_dir, config, jobs, backend, progress).run(runs)


class Retrainer:
    """A store of retrained models, and how to train those that it lacks; see `retrain_on` for arguments and errors."""

    def __init__(
        self,
        train: Train,
        task: Task | str | Any,
        targets: Iterable[Batch],
        train_set_size: int,
        save_dir: Location,
        config: Mapping[str, Any] | None,
        jobs: int | None,
        backend: str | Ray,
        progress: bool,
    ) -> None:
        if not callable(train):
            raise TypeError(
                f"train must be a function of (indices, seed), got {type(train).__name__}; define train(indices, seed)"
            )
        if jobs is not None:
            check_count(jobs, "jobs")
        if not isinstance(backend, Ray):
            check_option(backend, "backend", ("loky", "ray"))
        task = make_task(task)
        if is_dataset(targets):
            raise TypeError(
                f"targets is a data set of single examples ({type(targets).__name__}); pass DataLoader(targets, "
                "batch_size=32), or, of texts, trak.inputs.datasets.as_loader(targets, model, batch_size=32, "
                "collate_fn=tokenizer) with any model of this kind"
            )
        count_examples(targets, "targets")
        loaded = [batches.to_device(batch, torch.device("cpu")) for batch in targets]
        self._spec = TrainingSpec(train, task, loaded)
        self._jobs, self._backend, self._progress = jobs, backend, progress
        size, num_targets = check_count(train_set_size, "train_set_size"), sum(map(batches.size, loaded))
        digest = batches.combined_digest(np.concatenate([*map(batches.digests, loaded)]))
        same = RetrainingConfig(size, num_targets, digest, task.describe(), {} if config is None else config)
        self.store = ModelStore.create(save_dir, same)

    def run(self, runs: Sequence[tuple[Any, int] | TrainingRun]) -> Retrained:
        """What is known of the models of these runs, after training those that are missing."""
        checked = [checked_run(run, i, self.store.config.train_set_size) for i, run in enumerate(runs)]
        if not checked:
            raise ValueError("runs is empty: give at least one (indices, seed)")
        keys = [run.key() for run in checked]
        wanted = dict(zip(keys, checked, strict=True))
        missing = [run for key, run in wanted.items() if not self.store.is_done(key)]
        done, failure = len(wanted) - len(missing), None
        kept = f"of {len(wanted)} models are done and kept in {self.store.where}; run the same script again to go on"
        until_failure = takewhile(lambda _: failure is None, missing)
        results = measure_all(self._spec, until_failure, self._jobs, self._backend)
        bar = tqdm(total=len(wanted), initial=done, desc="retraining", unit="model", disable=not self._progress)
        try:
            with closing(results), bar:
                for position, found in results:
                    if isinstance(found, RunFailure):
                        failure = failure or (missing[position], found)
                        continue
                    self.store.write(missing[position], found)
                    done += 1
                    bar.update()
        except BrokenProcessPool as broken:
            died = "a process died while it trained; if memory ran out, use fewer jobs"
            raise RetrainingError(f"{died}. {done} {kept}") from broken
        if failure is not None:
            run, why = failure
            error = RetrainingError(f"training on {run} failed: {why.error}. {done} {kept}")
            if why.exception is None:
                error.add_note(f"In the other process:\n{why.where}")
            raise error from why.exception
        return read_models(self.store, keys)


def read_models(store: ModelStore, keys: Sequence[str]) -> Retrained:
    """What a store knows of models that are done."""
    found = {key: store.read(key) for key in dict.fromkeys(keys)}
    correct = np.stack([found[key].correct for key in keys])
    return Retrained(
        np.stack([found[key].outputs for key in keys]),
        None if np.isnan(correct).any() else correct == 1,
        np.array([found[key].seconds for key in keys]),
    )
