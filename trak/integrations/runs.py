"""Folders of checkpoints: FOLDER/run-0/final.pt, FOLDER/run-0/epoch-1.pt, FOLDER/run-1/final.pt, ..."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from trak.sharded import is_sharded, whole
from trak.wrappers import unwrapped

_RUN = re.compile(r"run-(\d+)")
_PARTIAL = ".partial"


def checkpoints(folder: str | Path, epoch: int | None = None) -> list[Path]:
    """The last checkpoint of every run of a folder that ended, or those after an epoch, in the runs' order.

    Raises:
        FileNotFoundError: if there are none.
    """
    folder, name = Path(folder).expanduser(), _name(epoch)
    runs = [(int(found[1]), path) for path in folder.glob("run-*") if (found := _RUN.fullmatch(path.name))]
    kept = [path / name for _, path in sorted(runs) if (path / name).exists()]
    if not kept:
        raise FileNotFoundError(
            f"no run in {str(folder)!r} has a checkpoint {name}; train with a TrakCallback({str(folder)!r}, run=0)"
        )
    return kept


class Run:
    """The checkpoints of one training run."""

    def __init__(
        self, folder: str | Path, number: int = 0, epochs: bool | Iterable[int] = False, replace: bool = False
    ) -> None:
        """
        Args:
            folder: shared by the runs that are attributed together.
            number: the run's, from 0.
            epochs: after which epochs, counted from 1, to keep a checkpoint besides the last; True for all.
            replace: whether the run may have ended before, and is done again.

        Raises:
            ValueError: for a number below 0 or an epoch below 1.
            TypeError: if they are no integers.
        """
        _check("run", number, 0)
        self.epochs = epochs if isinstance(epochs, bool) else frozenset(_check("epochs", one, 1) for one in epochs)
        self.directory, self.replace = Path(folder).expanduser() / f"run-{number}", replace
        self.number, self.store = number, self.directory / "store"

    def begin(self, resumed: bool, write: bool) -> None:
        """Delete what an earlier attempt at the run left.

        Args:
            resumed: whether this one goes on where that was, and keeps what that kept after epochs.
            write: whether this process is the one that writes.

        Raises:
            FileExistsError: if the run ended before and is not to be replaced.
        """
        if self.path().exists() and not self.replace:
            raise FileExistsError(
                f"run {self.number} ended before: {str(self.path())!r} exists; give this one another number, "
                f"run={self.number + 1}, or pass replace=True"
            )
        if not write:
            return
        epochs = () if resumed else self.directory.glob("epoch-*.pt")
        for path in [*epochs, self.path(), *self.directory.glob(f"*{_PARTIAL}")]:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.store, ignore_errors=True)

    def keeps(self, epoch: int) -> bool:
        """Whether a checkpoint is kept after an epoch."""
        return self.epochs if isinstance(self.epochs, bool) else epoch in self.epochs

    def path(self, epoch: int | None = None) -> Path:
        """Of the checkpoint after an epoch, or of the last."""
        return self.directory / _name(epoch)

    def save(self, model: nn.Module, epoch: int | None = None, write: bool = True) -> None:
        """Keep `model.state_dict()`, by the names of the model itself where it is within wrappers.

        The file is there as a whole or not at all, whenever the process is killed.

        Args:
            model: the model; every rank of a sharded one has to call this.
            epoch: after which epoch; None for the end.
            write: whether this process is the one that writes.
        """
        model = unwrapped(model)
        is_sharded(model)  # raises where the state dict is not the model's
        state = {name: whole(v) if isinstance(v, Tensor) else v for name, v in model.state_dict().items()}
        if not write:
            return
        path = self.path(epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + _PARTIAL)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def _name(epoch: int | None) -> str:
    return "final.pt" if epoch is None else f"epoch-{epoch}.pt"


def _check(what: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be a whole number, got {value!r}; give one")
    if value < least:
        raise ValueError(f"{what} must be {least} or more, got {value}; give such a number")
    return value
