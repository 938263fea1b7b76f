"""Folders of checkpoints: FOLDER/run-0/final.pt, FOLDER/run-0/epoch-1.pt, FOLDER/run-1/final.pt, ..."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from trak._utils.platform import replace
from trak.inputs.fsdp import full_tensor, is_sharded
from trak.inputs.wrappers import unwrap_model
from trak.integrations.recorded_data import FILE, RecordedData, check_same

_RUN = re.compile(r"run-(\d+)")
_PARTIAL = ".partial"


def ended(folder: str | Path) -> list[Path]:
    """The folders of the runs that ended, in their order."""
    return [path for path in _runs(Path(folder).expanduser()) if (path / _name(None)).exists()]


def checkpoints(folder: str | Path, epoch: int | None = None) -> list[Path]:
    """The last checkpoint of every run of a folder that ended, or those after an epoch, in the runs' order.

    Raises:
        FileNotFoundError: if there are none.
    """
    folder, name = Path(folder).expanduser(), _name(epoch)
    kept = [path / name for path in _runs(folder) if (path / name).exists()]
    if not kept:
        raise FileNotFoundError(
            f"no run in {str(folder)!r} has a checkpoint {name}; train with a TrakCallback({str(folder)!r}, run=0)"
        )
    return kept


def _runs(folder: Path) -> list[Path]:
    found = [(int(match[1]), path) for path in folder.glob("run-*") if (match := _RUN.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


class RunFolder:
    """The checkpoints of one training run."""

    def __init__(
        self,
        folder: str | Path,
        number: int = 0,
        epochs: bool | Iterable[int] = False,
        replace: bool = False,
        reuse: bool = False,
    ) -> None:
        """
        Args:
            folder: shared by the runs that are attributed together.
            number: the run's, from 0.
            epochs: after which epochs, counted from 1, to keep a checkpoint besides the last; True for all.
            replace: whether the run may have ended before, and is done again.
            reuse: whether the run may have ended before, and is not done again.

        Raises:
            ValueError: for a number below 0 or an epoch below 1, or for both replace and reuse.
            TypeError: if they are no integers.
        """
        _check("run", number, 0)
        if replace and reuse:
            raise ValueError(f"replace={replace} does run {number} again, and reuse={reuse} does not; leave one out")
        self.epochs = epochs if isinstance(epochs, bool) else frozenset(_check("epochs", one, 1) for one in epochs)
        self.folder, self.replace, self.reuse = Path(folder).expanduser(), replace, reuse
        self.directory = self.folder / f"run-{number}"
        self.number, self.store = number, self.directory / "store"

    def begin(self, resumed: bool, write: bool, data: RecordedData | None = None) -> bool:
        """Delete what an earlier attempt at the run left, unless that ended and is reused; record the training data.

        Args:
            resumed: whether this one goes on where that was, and keeps what that kept after epochs.
            write: whether this process is the one that writes.
            data: what is trained on, if it is known.

        Returns:
            Whether the run ended before, and what it left is kept.

        Raises:
            FileExistsError: if the run ended before, and is neither to be replaced nor reused.
            ValueError: if another run of the folder that ended had other training data, or this one, if it is reused.
        """
        done = self.path().exists()
        if done and not self.replace and not self.reuse:
            raise FileExistsError(
                f"run {self.number} ended before: {str(self.path())!r} exists; pass reuse=True to go on from its "
                f"weights, replace=True to train it again, run={self.number + 1} for one more run on the same data, or "
                "another folder for another experiment"
            )
        done = done and self.reuse
        others = [path for path in ended(self.folder) if done or path != self.directory]
        check_same(
            [*((path.name, RecordedData.read(path)) for path in others), (f"this run ({self.directory.name})", data)],
            self.folder,
        )
        if done or not write:
            return done
        epochs = () if resumed else self.directory.glob("epoch-*.pt")
        for path in [*epochs, self.path(), *self.directory.glob(f"*{_PARTIAL}")]:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.store, ignore_errors=True)
        (self.directory / FILE).unlink(missing_ok=True)
        if data is not None:
            data.write(self.directory)
        return False

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
        model = unwrap_model(model)
        is_sharded(model)  # raises where the state dict is not the model's
        state = {name: full_tensor(v) if isinstance(v, Tensor) else v for name, v in model.state_dict().items()}
        if not write:
            return
        path = self.path(epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + _PARTIAL)
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        replace(partial, path)


def _name(epoch: int | None) -> str:
    return "final.pt" if epoch is None else f"epoch-{epoch}.pt"


def _check(what: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be a whole number, got {value!r}; give one")
    if value < least:
        raise ValueError(f"{what} must be {least} or more, got {value}; give such a number")
    return value
