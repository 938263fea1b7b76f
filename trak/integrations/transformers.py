"""For transformers' Trainer: checkpoints that attribution needs, and attribution of what was trained.

A run, and its attribution::

    callback = TrakCallback("runs", run=0, task="text_classification", targets=eval_dataset)
    Trainer(..., callbacks=[callback]).train()
    callback.attribution.top(10)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers

from trak import api
from trak.attribution import StoredAttribution
from trak.checkpoints import Checkpoint
from trak.datasets import as_loader
from trak.integrations.keeping import Keeping
from trak.integrations.runs import checkpoints
from trak.loaders import in_order
from trak.store.location import Location
from trak.tasks import Task

__all__ = ["TrakCallback", "attribute", "checkpoints"]


class TrakCallback(Keeping, transformers.TrainerCallback):
    """Keeps the weights of a training run, when it ends and after epochs, and attributes the last if asked to.

    Data is read as the Trainer sees it, in order: without the columns that it removes, and by its collator. What
    `load_best_model_at_end` loads is the last checkpoint.
    """

    _loaders: dict[str, Any] | None = None
    """Of evaluation data, by the prefix of its metrics; None unless the Trainer trains."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Check that the run is new, and that there is something to attribute."""
        evaluates = given.get("eval_dataloader") is not None or args.eval_strategy != "no"
        self._lacks_targets(evaluates, "or let the Trainer evaluate (eval_strategy)")
        self._begin(given["model"], given["train_dataloader"], state.global_step > 0, state.is_world_process_zero)
        self._loaders = {}

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Check that it is said which of several data sets are the targets; later the Trainer knows the last alone."""
        if self._loaders is None:
            return
        for key in given["metrics"]:
            if key.endswith("_runtime"):
                self._loaders[key.removesuffix("_runtime")] = given["eval_dataloader"]
        if self._task is not None and self._targets is None and len(self._loaders) > 1:
            raise ValueError(
                f"the Trainer evaluates several data sets ({', '.join(self._loaders)}), and it is not said which is to "
                "be attributed; pass targets="
            )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep a checkpoint after a whole epoch, if it is to be kept."""
        epoch = round(state.epoch)
        if abs(state.epoch - epoch) < 1e-6 and self.run.keeps(epoch):
            self.run.save(given["model"], epoch, state.is_world_process_zero)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the last checkpoint, and attribute it if a task was given."""
        train, found, self._loaders = given["train_dataloader"], self._loaders or {}, None
        evaluated = next(iter(found.values()), given["eval_dataloader"])
        self._end(given["model"], train, evaluated, train.collate_fn, state.is_world_process_zero)


def attribute(
    trainer: Any,
    task: Task | str | Any,
    weights: str | Path | Checkpoint | Sequence[Checkpoint],
    targets: Any = None,
    save_dir: Location = "./trak_results",
    *,
    batch_size: int | None = None,
    **options: Any,
) -> StoredAttribution:
    """`trak.attribute` with the model and the data of a Trainer, as it sees them, in order.

    Args:
        trainer: a `transformers.Trainer` with a training set.
        task: a task or its name.
        weights: the folder of `TrakCallback`, for the last checkpoints of all runs in it, or checkpoints as
            `trak.attribute` takes them.
        targets: what to attribute, by default the Trainer's evaluation set; a loader, or a data set, which is collated
            as the training set.
        save_dir: directory or URL of the feature store.
        batch_size: examples of a batch, by default the Trainer's.
        options: of `trak.attribute`.

    Raises:
        ValueError, TypeError: as `trak.attribute`, and for training data without an order.
        FileNotFoundError: if the folder has no run that ended.
    """
    found = weights
    if isinstance(weights, str | Path) and Path(weights).expanduser().is_dir():
        found = list(checkpoints(weights))
    trained = in_order(trainer.get_train_dataloader(), "the Trainer's training loader", batch_size)
    if targets is None:
        asked = in_order(trainer.get_eval_dataloader(), "the Trainer's evaluation loader", batch_size)
    else:
        asked = as_loader(targets, trainer.model, "targets", batch_size, trained.collate_fn)
    options = {"device": trainer.args.device, **options}
    return api.attribute(trainer.model, task, found, trained, asked, save_dir, **options)
