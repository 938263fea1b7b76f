"""A file that several processes fill together, and that appears under its name only when it is complete."""

import fcntl
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trak.store.arrays import Rows, reserve, write_all
from trak.store.claims import Claims
from trak.store.location import PARTIAL, naming_full_disk

Block = tuple[slice, slice, Rows]
"""Rows, columns, and the values there."""


@dataclass(frozen=True)
class Pieces:
    """What a matrix is made of, in numbered pieces that don't overlap."""

    count: int
    blocks: Callable[[int], Iterator[Block]]
    """Computes the piece of a number, some of it at a time."""

    def fill(self, out: Rows) -> None:
        """Write all of them into an array."""
        for piece in range(self.count):
            for rows, columns, values in self.blocks(piece):
                out[rows, columns] = values


class SharedFile:
    """A matrix in a file, row by row.

    Processes of several machines may write it: whatever is written or asked goes by a file that was just opened and
    locked, since network file systems promise no more; and a piece counts as done once it is on disk.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
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
        sizes = {self._partial: math.prod(self.shape) * self.dtype.itemsize, self._done: pieces.count}
        with locked(), naming_full_disk(repr(str(self.path))):
            if self.path.exists():
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if any(not file.exists() or file.stat().st_size != size for file, size in sizes.items()):
                self.forget()
                for file, size in sizes.items():
                    reserve(file, size)
        try:
            claims.once(what, range(pieces.count), self._is_done, lambda piece: self._write_piece(pieces, piece))
        except FileNotFoundError:
            if not self.path.exists():  # or another thread has completed it
                raise
        with locked():
            if not self.path.exists():
                complete(self._partial)
                os.replace(self._partial, self.path)
                self._done.unlink()

    def _is_done(self, piece: int) -> bool:
        try:
            with _opened(self._done, os.O_RDONLY, fcntl.LOCK_SH) as done:
                return os.pread(done, 1, piece) == b"\1"
        except FileNotFoundError:  # another process has completed it
            return self.path.exists()

    def _write_piece(self, pieces: Pieces, piece: int) -> None:
        for rows, columns, values in pieces.blocks(piece):
            data = np.ascontiguousarray(values, self.dtype)
            whole = columns.stop - columns.start == self.shape[1]
            with _opened(self._partial, os.O_RDWR, fcntl.LOCK_EX) as partial, naming_full_disk(repr(str(self.path))):
                for number, row in enumerate((data,) if whole else data):
                    write_all(partial, row.data.cast("B"), self._offset(rows.start + number, columns.start))
        # Without the lock, which would keep others from writing meanwhile: all of it is written.
        partial = os.open(self._partial, os.O_RDWR)
        try:
            os.fdatasync(partial)
        finally:
            os.close(partial)
        with _opened(self._done, os.O_RDWR, fcntl.LOCK_EX) as done:
            os.pwrite(done, b"\1", piece)

    def _offset(self, row: int, column: int) -> int:
        return (row * self.shape[1] + column) * self.dtype.itemsize


@contextmanager
def _opened(path: Path, flags: int, lock: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        fcntl.flock(descriptor, lock)
        yield descriptor
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing leaves it to a loader's worker that was just forked
        os.close(descriptor)
