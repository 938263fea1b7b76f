"""Matrices that several processes compute together, a piece each at a time."""

import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from trak._utils.platform import delete, open_locked, read_at, replace, reserve, sync_data, write_at
from trak._utils.zarr_private import sync
from trak.store import location as places
from trak.store.array_layout import row_array
from trak.store.checks import check_inside, checked
from trak.store.location import PARTIAL, Location
from trak.store.locks import RowLocks
from trak.store.row_array import Rows, new_array
from trak.store.zarr_groups import is_written, write_whole

CHECKSUM = "crc32"
"""Attribute of a matrix in a file."""
_READ_AT_ONCE = 1 << 24

TileBlock = tuple[slice, slice, Rows]
"""Rows, columns, and the values there."""


@dataclass(frozen=True)
class Tiles:
    """What a matrix is made of, in pieces that don't overlap, numbered column by column."""

    count: int
    shape: tuple[int, int]
    """Rows and columns of a piece; the last ones may have fewer."""
    blocks: Callable[[int], Iterator[TileBlock]]
    """Computes the piece of a number, some of it at a time."""

    def fill(self, out: Rows) -> None:
        """Write all of them into an array."""
        for piece in range(self.count):
            for rows, columns, values in self.blocks(piece):
                out[rows, columns] = values


class LocalMatrix:
    """A matrix in a file of a local store, row by row; it appears under its name only when it is complete.

    Processes of several machines may write it: whatever is written or asked goes by a file that was just opened and
    locked, since network file systems promise no more; and a piece counts as done once it is on disk.
    """

    def __init__(self, root: Path, group: zarr.Group, name: str, shape: tuple[int, int], dtype: str) -> None:
        self._root, self._group, self._name = root, group, name
        self.path, self.shape, self.dtype = root / group.path / name / "c" / "0" / "0", shape, np.dtype(dtype)
        self._partial = self.path.with_name(self.path.name + PARTIAL)
        self._done = self.path.with_name(f"{self.path.name}.done{PARTIAL}")

    def is_complete(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def write(
        self,
        make: Callable[[], Tiles],
        locks: RowLocks,
        attributes: Mapping[str, Any],
        help_with: Callable[[int], object] | None = None,
        only: Iterable[int] | None = None,
    ) -> None:
        """Return once the file is there, filled by this process and all others that call this meanwhile.

        Args:
            make: raises if it can't be computed, or returns the pieces.
            claims: of the store.
            attributes: of the array.
            help_with: has other processes compute so many pieces by `only`, and returns when they have.
            only: compute these pieces, and return when they are there; another process waits for `help_with`.
        """
        with places.locked(self._root):
            check_inside(self._group, f"{self._name}/c/0/0")
            new_array(self._group, self._name, self.shape, self.shape, self.dtype.name, attributes=dict(attributes))
        try:
            with places.shared(self._root, places.SCORES, alone=self._forget):
                if not self.is_complete():
                    self._write(make(), locks, help_with, only)
        except BaseException:
            with places.locked(self._root):
                places.remove_leftovers(self._root)
            raise

    def read(self) -> Rows:
        """All of it, mapped and not to be written to.

        Raises:
            StoreError: if it is truncated.
        """
        row_array(self._group, self._name).read_chunk(0)
        return np.memmap(self.path, self.dtype, mode="r", shape=self.shape)

    def is_corrupt(self) -> bool:
        """Whether it differs from the checksum taken when it was written."""
        expected = self._group[self._name].attrs.get(CHECKSUM)
        return self.path.exists() and (not self.path.is_file() or expected not in (None, _crc(self.path)))

    def delete(self) -> None:
        """Before the metadata: a kill in between must not leave scores that nothing deletes."""
        shutil.rmtree(self.path) if self.path.is_dir() else delete(self.path)

    def _forget(self) -> None:
        """Remove what is half-written, while nobody writes."""
        delete(self._partial)
        delete(self._done)

    def _write(
        self,
        pieces: Tiles,
        locks: RowLocks,
        help_with: Callable[[int], object] | None,
        only: Iterable[int] | None,
    ) -> None:
        sizes = {self._partial: math.prod(self.shape) * self.dtype.itemsize, self._done: pieces.count}
        with places.locked(self._root), places.naming_full_disk(repr(str(self.path))):
            if self.path.exists():
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if any(not file.exists() or file.stat().st_size != size for file, size in sizes.items()):
                self._forget()
                for file, size in sizes.items():
                    reserve(file, size)
        what = f"{self._group.path}/{self._name}"
        try:
            _compute(pieces, locks, what, self._is_done, self._write_piece, help_with, only)
        except FileNotFoundError:
            if not self.path.exists():  # or another thread has completed it
                raise
        if only is not None:
            return
        with places.locked(self._root):
            if not self.path.exists():
                self._group[self._name].update_attributes({CHECKSUM: _crc(self._partial)})
                replace(self._partial, self.path)
                delete(self._done)

    def _is_done(self, piece: int) -> bool:
        try:
            with open_locked(self._done, write=False) as done:
                return read_at(done, 1, piece) == b"\1"
        except FileNotFoundError:  # another process has completed it
            return self.path.exists()

    def _write_piece(self, pieces: Tiles, piece: int) -> None:
        for rows, columns, values in pieces.blocks(piece):
            data = np.ascontiguousarray(values, self.dtype)
            whole = columns.stop - columns.start == self.shape[1]
            with (
                open_locked(self._partial, write=True) as partial,
                places.naming_full_disk(repr(str(self.path))),
            ):
                for number, row in enumerate((data,) if whole else data):
                    write_at(partial, row.data.cast("B"), self._offset(rows.start + number, columns.start))
        # Without the lock, which would keep others from writing meanwhile: all of it is written.
        sync_data(self._partial)
        with open_locked(self._done, write=True) as done:
            write_at(done, memoryview(b"\1"), piece)

    def _offset(self, row: int, column: int) -> int:
        return (row * self.shape[1] + column) * self.dtype.itemsize


class RemoteMatrix:
    """A matrix in an array of a store that is no directory; a piece is a chunk, and done once that is there."""

    def __init__(self, group: zarr.Group, name: str, shape: tuple[int, int], dtype: str) -> None:
        self._group, self._name, self.shape, self.dtype = group, name, shape, dtype

    def is_complete(self) -> bool:
        """Whether all pieces are there."""
        return is_written(self._group, self._name)

    def write(
        self,
        make: Callable[[], Tiles],
        locks: RowLocks,
        attributes: Mapping[str, Any],
        help_with: Callable[[int], object] | None = None,
        only: Iterable[int] | None = None,
    ) -> None:
        """Return once all pieces are there; arguments as of `LocalMatrix.write`."""
        pieces = make()
        chunks = (min(pieces.shape[0], self.shape[0]), min(pieces.shape[1], self.shape[1]))
        array = checked(self._group, self._name)
        if array is not None and (not isinstance(array, zarr.Array) or array.chunks != chunks):
            del self._group[self._name]  # another version's
        new_array(self._group, self._name, self.shape, chunks, self.dtype, attributes=dict(attributes))
        what, is_done = f"{self._group.path}/{self._name}", partial(self._is_done, pieces)
        _compute(pieces, locks, what, is_done, self._write_piece, help_with, only)

    def is_corrupt(self) -> bool:
        """Never known: nothing is recorded of what several processes write."""
        return False

    def delete(self) -> None:
        """Nothing to be done before the metadata is deleted."""

    def _is_done(self, pieces: Tiles, piece: int) -> bool:
        row, column = self._place(pieces, piece)
        return sync(self._group.store.exists(f"{self._group.path}/{self._name}/c/{row}/{column}"))

    def _place(self, pieces: Tiles, piece: int) -> tuple[int, int]:
        column, row = divmod(piece, -(-self.shape[0] // pieces.shape[0]))
        return row, column

    def _write_piece(self, pieces: Tiles, piece: int) -> None:
        row, column = self._place(pieces, piece)
        first, left = row * pieces.shape[0], column * pieces.shape[1]
        where = slice(first, first + pieces.shape[0]), slice(left, left + pieces.shape[1])
        whole = np.empty([len(range(size)[part]) for size, part in zip(self.shape, where, strict=True)], self.dtype)
        for rows, columns, values in pieces.blocks(piece):
            whole[rows.start - first : rows.stop - first, columns.start - left : columns.stop - left] = values
        write_whole(self._group, self._name, whole, where)

    def read(self) -> Rows:
        """All of it, in memory."""
        return np.asarray(self._group[self._name][...])  # type: ignore[index]


def _compute(
    pieces: Tiles,
    locks: RowLocks,
    what: str,
    is_done: Callable[[int], bool],
    write_piece: Callable[[Tiles, int], None],
    help_with: Callable[[int], object] | None,
    only: Iterable[int] | None,
) -> None:
    """Have others help, then return once all pieces are done, or only some."""
    if help_with is not None:
        help_with(pieces.count)
    locks.once(what, range(pieces.count) if only is None else only, is_done, partial(write_piece, pieces))


def open_matrix(
    location: Location, group: zarr.Group, name: str, shape: tuple[int, int], dtype: str
) -> LocalMatrix | RemoteMatrix:
    """The matrix of a name in a group of a store."""
    root = places.local_root(location)
    return RemoteMatrix(group, name, shape, dtype) if root is None else LocalMatrix(root, group, name, shape, dtype)


def _crc(path: Path) -> int:
    """CRC-32 (ISO 3309) of a file."""
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(_READ_AT_ONCE):
            found = zlib.crc32(piece, found)
    return found
