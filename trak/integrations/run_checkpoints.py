"""Checkpoints of training runs: FOLDER/run-0/final.pt, FOLDER/run-0/epoch-1.pt, FOLDER/run-1/final.pt, ..."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trak._utils.platform import replace
from trak._utils.validation import is_integer
from trak.inputs.fsdp import full_tensor, is_sharded
from trak.inputs.wrappers import unwrap_model
from trak.integrations.data_fingerprint import FILE, DataFingerprint, check_same_data

_RUN = re.compile(r"run-(\d+)")
_PARTIAL = ".partial"


def finished_runs(folder: Path, epoch: int | None = None) -> list[Path]:
    """The folders of the finished runs, or of those with a checkpoint after an epoch, in order."""
    found = [(int(match[1]), path) for path in folder.glob("run-*") if (match := _RUN.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / _name(epoch)).exists()]


def checkpoints(folder: str | Path, epoch: int | None = None) -> list[Path]:
    """The last checkpoints of the finished runs of a folder, or those after an epoch, in order.

    Raises:
        FileNotFoundError: if there are none.
    """
    folder, name = Path(folder).expanduser(), _name(epoch)
    kept = [path / name for path in finished_runs(folder, epoch)]
    if not kept:
        raise FileNotFoundError(
            f"no run in {str(folder)!r} has a checkpoint {name}; train with a TrakCallback({str(folder)!r}, run=0)"
        )
    return kept


class RunCheckpoints:
    """The checkpoints of one training run, with the arguments of `CheckpointCallback`."""

    def __init__(
        self,
        folder: str | Path,
        number: int = 0,
        epochs: bool | Iterable[int] = False,
        replace: bool = False,
        reuse: bool = False,
    ) -> None:
        _check("run", number, 0)
        if replace and reuse:
            raise ValueError(f"replace={replace} does run {number} again, and reuse={reuse} does not; leave one out")
        self.epochs = epochs if isinstance(epochs, bool) else frozenset(_check("epochs", one, 1) for one in epochs)
        self.folder, self.replace, self.reuse = Path(folder).expanduser(), replace, reuse
        self.directory = self.folder / f"run-{number}"
        self.number, self.store = number, self.directory / "store"

    def start(self, resumed: bool, write: bool, data: DataFingerprint | None = None) -> bool:
        """Delete an earlier attempt at the run and record the training data, or return True if that finished and is
        reused. If it is resumed, its checkpoints after epochs stay."""
        done = self.path().exists()
        if done and not self.replace and not self.reuse:
            raise FileExistsError(
                f"run {self.number} ended before: {str(self.path())!r} exists; pass reuse=True to go on from its "
                f"weights, replace=True to train it again, run={self.number + 1} for one more run on the same data, or "
                "another folder for another experiment"
            )
        done = done and self.reuse
        others = [path for path in finished_runs(self.folder) if done or path != self.directory]
        known = [(path.name, DataFingerprint.read(path)) for path in others]
        check_same_data([*known, (f"this run ({self.directory.name})", data)], self.folder)
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

    def saves_after(self, epoch: int) -> bool:
        """Whether the checkpoint after an epoch is saved."""
        return self.epochs if isinstance(self.epochs, bool) else epoch in self.epochs

    def path(self, epoch: int | None = None) -> Path:
        """The file of the checkpoint after an epoch, or of the last."""
        return self.directory / _name(epoch)

    def save(self, model: nn.Module, epoch: int | None = None, write: bool = True) -> None:
        """Save `model.state_dict()` after an epoch or the last, by the names of the model without its wrappers; every
        rank of a sharded model has to call this. The file is complete or missing, even if the process is killed."""
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


def _check(what: str, value: Any, least: int) -> int:
    if not is_integer(value):
        raise TypeError(f"{what} must be a whole number, got {value!r}; give one")
    if value < least:
        raise ValueError(f"{what} must be {least} or more, got {value}; give such a number")
    return int(value)
