"""A file that several processes fill together, and that appears under its name only when it is complete."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trak.store.arrays import Rows, reserve
from trak.store.claims import Claims
from trak.store.location import PARTIAL, naming_full_disk


@dataclass(frozen=True)
class Pieces:
    """What a file is filled with, in numbered pieces that don't overlap."""

    count: int
    fill: Callable[[Rows, int], None]
    """Writes the piece of a number into the array."""


class SharedFile:
    """An array in a file."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._partial = path.with_name(path.name + PARTIAL)
        self._done = path.with_name(f"{path.name}.done{PARTIAL}")

    def forget(self) -> None:
        """Remove what is half-written; call it while nobody writes."""
        self._partial.unlink(missing_ok=True)
        self._done.unlink(missing_ok=True)

    def write(
        self,
        pieces: Pieces,
        claims: Claims,
        what: str,
        locked: Callable[[], AbstractContextManager[None]],
        complete: Callable[[Path], object],
    ) -> None:
        """Return once the file is there, filled by this process and all others that call this meanwhile.

        Args:
            pieces: the contents.
            claims: of the store.
            what: a name for the file in them.
            locked: excludes other processes for a moment.
            complete: told of the file when it is complete, and not yet there under its name.
        """
        with locked(), naming_full_disk(repr(str(self.path))):
            if self.path.exists():
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._partial.exists():
                reserve(self._done, pieces.count)
                reserve(self._partial, int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize)
            target = np.memmap(self._partial, self.dtype, mode="r+", shape=self.shape)
            done: np.ndarray[Any, Any] = np.memmap(self._done, np.uint8, mode="r+", shape=(pieces.count,))

        def fill(piece: int) -> None:
            pieces.fill(target, piece)
            done[piece] = 1

        claims.once(what, range(pieces.count), lambda piece: bool(done[piece]), fill)
        target.flush()
        with locked():
            if not self.path.exists():
                complete(self._partial)
                os.replace(self._partial, self.path)
                self._done.unlink()
