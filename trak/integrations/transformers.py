"""Checkpoints for attribution, and attribution of what was trained, for transformers' Trainer.

A run, and its attribution::

    callback = TrakCallback("runs", run=0, task="text_classification", targets=eval_dataset)
    Trainer(..., callbacks=[callback]).train()
    callback.attribution.top(10)
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import transformers

from trak.attribution import api
from trak.attribution.results import StoredAttribution
from trak.inputs.checkpoints import Checkpoint, find_weights_file
from trak.inputs.datasets import as_loader
from trak.inputs.loaders import sequential_loader
from trak.integrations.checkpoint_callback import CheckpointCallback
from trak.integrations.data_fingerprint import DataFingerprint, check_same_data
from trak.integrations.run_checkpoints import checkpoints, finished_runs
from trak.store.location import Location
from trak.tasks import Task, make_task

__all__ = ["TrakCallback", "attribute", "checkpoints"]


class TrakCallback(CheckpointCallback, transformers.TrainerCallback):
    """Saves the weights of a training run, when it ends and after epochs, and attributes the last if a task is given.

    Data is read as the Trainer sees it, in order: without the columns that it removes, and by its collator. What
    `load_best_model_at_end` loads is the last checkpoint.
    """

    _loaders: dict[str, Any] | None = None
    """Loaders of evaluation data, by the prefix of their metrics; None unless the Trainer trains."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Check that the run is new, or reuse it, and that there is something to attribute."""
        evaluates = given.get("eval_dataloader") is not None or args.eval_strategy != "no"
        remedy = (
            'let it evaluate while it trains: TrainingArguments(eval_strategy="epoch"), since without eval_strategy'
        )
        self._check_has_targets(evaluates, f"or {remedy} eval_dataset is never loaded")
        _check_loss(args, self._task)
        self._start(given["model"], given["train_dataloader"], state.global_step > 0, state.is_world_process_zero)
        self._loaders = {}

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Check that it is said which of several data sets are the targets; later the Trainer knows the last alone."""
        if self._loaders is None:
            return
        names = [key.removesuffix("_runtime") for key in given["metrics"] if key.endswith("_runtime")]
        self._loaders |= dict.fromkeys(names, given["eval_dataloader"])
        if self._task is not None and self._targets is None and len(self._loaders) > 1:
            raise ValueError(
                f"the Trainer evaluates several data sets ({', '.join(self._loaders)}), and it is not said which is to "
                "be attributed; pass targets="
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Stop if the run is reused."""
        if self._reused:  # before the first step the Trainer doesn't look; `on_epoch_end` undoes it
            control.should_training_stop = True
            control.should_save = control.should_evaluate = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Save the checkpoint after a whole epoch."""
        epoch = round(state.epoch)
        if self._reused:
            self._restore(given["model"])
            control.should_save, control.should_evaluate = False, args.eval_strategy != "no"
        elif abs(state.epoch - epoch) < 1e-6 and self.run.saves_after(epoch):
            self.run.save(given["model"], epoch, state.is_world_process_zero)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Save the last checkpoint, and attribute it if a task was given."""
        train, found, self._loaders = given["train_dataloader"], self._loaders or {}, None
        evaluated = next(iter(found.values()), given["eval_dataloader"])
        self._finish(given["model"], train, evaluated, train.collate_fn, state.is_world_process_zero)


def attribute(
    trainer: Any,
    task: Task | str | Any,
    weights: str | Path | Checkpoint | Sequence[Checkpoint],
    targets: Any = None,
    save_dir: Location | None = None,
    *,
    batch_size: int | None = None,
    **options: Any,
) -> StoredAttribution:
    """`trak.attribute` with the model and the data of a Trainer, as it sees them, in order.

    The Trainer needn't have trained: its model may have any weights of the same architecture.

    Args:
        trainer: a `transformers.Trainer` with a training set.
        task: a task or its name.
        weights: the folder of `TrakCallback`, for the last checkpoints of all runs in it, or checkpoints as
            `trak.attribute` takes them.
        targets: what to attribute, by default the Trainer's evaluation set; a loader, or a data set, which is collated
            as the training set.
        save_dir: directory or URL of the feature store; by default "store" in the folder of runs, or "./trak_results"
            for other weights.
        batch_size: examples of a batch, by default the Trainer's.
        options: of `trak.attribute`.

    Raises:
        ValueError, TypeError: as `trak.attribute`, for training data without an order, and if the runs of the folder
            or the Trainer have different training data.
        FileNotFoundError: if the folder has no run that ended.
    """
    found, train = weights, trainer.get_train_dataloader()
    trained = sequential_loader(train, "the Trainer's training loader", batch_size)
    _check_loss(trainer.args, make_task(task))
    folder = Path(weights).expanduser() if isinstance(weights, str | Path) else None
    if folder is not None and folder.is_dir() and not find_weights_file(folder):
        found = list(checkpoints(folder))
        known = [(path.name, DataFingerprint.read(path)) for path in finished_runs(folder)]
        check_same_data([*known, ("the Trainer", DataFingerprint.from_loader(train))], folder)
        save_dir = folder / "store" if save_dir is None else save_dir
    if targets is None:
        evaluated = trainer.get_eval_dataloader()
        asked: Iterable[Any] = sequential_loader(evaluated, "the Trainer's evaluation loader", batch_size)
    else:
        asked = as_loader(targets, trainer.model, "targets", batch_size, trained.collate_fn)
    options = {"device": trainer.args.device, **options}
    save_dir = "./trak_results" if save_dir is None else save_dir
    return api.attribute(trainer.model, task, found, trained, asked, save_dir, **options)


def _check_loss(args: Any, task: Task | None) -> None:
    """Warn if the Trainer's loss is not that of a task of this library."""
    smoothing = args.label_smoothing_factor
    if task is not None and smoothing and type(task).__module__.startswith("trak."):
        warnings.warn(
            f"the Trainer trains with label_smoothing_factor={smoothing}, but task={task.describe()['name']!r} has the "
            "loss without smoothing, so scores are of another loss than was trained; leave label_smoothing_factor out, "
            "or pass a task of your own that has it",
            stacklevel=3,
        )
