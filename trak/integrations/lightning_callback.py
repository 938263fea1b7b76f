"""Base of the callbacks of both Lightning packages."""

from typing import Any

from torch import nn

from trak.integrations.checkpoint_callback import CheckpointCallback


class LightningCallback(CheckpointCallback):
    """Saves the weights of a training run, when it ends and after epochs, and attributes the last if a task is given.

    Batches are those of the loaders, in order and as the loaders collate them; the hooks of a LightningModule that
    change batches (`on_after_batch_transfer`) are not called.
    """

    def __init__(self, folder: Any, run: int = 0, *, module: str | None = None, **options: Any) -> None:
        """
        Args:
            folder, run: as for `trak.integrations.checkpoint_callback.CheckpointCallback`.
            module: the attribute of the LightningModule that is the model, such as "model" or "net.encoder"; its
                weights are kept, by its own names, and it is what the task calls. By default the LightningModule.
            options: the other arguments of `CheckpointCallback`.
        """
        super().__init__(folder, run, **options)
        self._module = module

    def _model(self, pl_module: nn.Module) -> nn.Module:
        found: Any = pl_module
        for part in self._module.split(".") if self._module else ():
            found = getattr(found, part, None)
        if not isinstance(found, nn.Module):
            own = ", ".join(name for name, _ in pl_module.named_children()) or "none"
            raise ValueError(
                f"module={self._module!r} is no module of {type(pl_module).__name__}; use one of its modules: {own}"
            )
        return found

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check that the run is new, or stop if it is reused, and that there are a model and something to attribute."""
        self._check_has_targets(trainer.enable_validation, "or give the Trainer a validation loader")
        loaders = trainer.val_dataloaders
        if self._task is not None and self._targets is None and isinstance(loaders, list | tuple) and len(loaders) > 1:
            raise ValueError(
                f"the Trainer has {len(loaders)} validation loaders, and it is not said which is to be attributed; "
                "pass targets="
            )
        model, train = self._model(pl_module), trainer.train_dataloader
        if self._start(model, train, trainer.global_step > 0, trainer.is_global_zero):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the checkpoint after a whole epoch."""
        epoch = trainer.current_epoch + 1
        if not self._reused and trainer.is_last_batch and self.run.saves_after(epoch):
            self.run.save(self._model(pl_module), epoch, trainer.is_global_zero)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the last checkpoint, and attribute it if a task was given."""
        train, evaluated = trainer.train_dataloader, trainer.val_dataloaders
        if isinstance(evaluated, list | tuple) and len(evaluated) == 1:
            evaluated = evaluated[0]
        collate = getattr(train, "collate_fn", None)
        self._finish(self._model(pl_module), train, evaluated, collate, trainer.is_global_zero)
