"""The callback of `trak.integrations.lightning` for the Trainer of `import pytorch_lightning`."""

from pytorch_lightning.callbacks import Callback

from trak.integrations.lightning_callback import LightningCallback
from trak.integrations.run_checkpoints import checkpoints

__all__ = ["TrakCallback", "checkpoints"]


class TrakCallback(LightningCallback, Callback):
    """Saves the weights of a training run, and attributes the last if a task is given; see `LightningCallback`."""
