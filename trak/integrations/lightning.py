"""Checkpoints for attribution, and attribution of what was trained, for the Trainer of `import lightning`.

A run, and its attribution::

    callback = TrakCallback("runs", run=0, module="model", task="image_classification", targets=test_loader)
    Trainer(..., callbacks=[callback]).fit(module, train_loader)
    callback.attribution.top(10)
"""

from lightning.pytorch.callbacks import Callback

from trak.integrations.lightning_callback import LightningCallback
from trak.integrations.run_checkpoints import checkpoints

__all__ = ["TrakCallback", "checkpoints"]


class TrakCallback(LightningCallback, Callback):
    """Saves the weights of a training run, and attributes the last if a task is given; see `LightningCallback`."""
