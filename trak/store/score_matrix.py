"""Score matrices, computed a tile at a time: in a file, in an object store or in memory."""

import math
import shutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr

from trak._utils.platform import delete, open_locked, read_at, replace, reserve, sync_data, write_at
from trak._utils.typing import Array
from trak._utils.zarr_private import sync
from trak.store import location as places
from trak.store.array_layout import row_array
from trak.store.checks import check_inside, checked
from trak.store.location import PARTIAL, Location
from trak.store.row_array import new_array
from trak.store.tiles import Executor, Tiles
from trak.store.zarr_groups import is_written, subgroup, write_whole

CHECKSUM = "crc32"
"""Attribute of a matrix in a file."""
_READ_AT_ONCE = 1 << 24


class ScoreMatrix(ABC):
    """A matrix whose tiles may be computed by several processes."""

    def __init__(self, shape: tuple[int, int], dtype: str | np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether all tiles are computed."""

    @abstractmethod
    def compute(self, tiles: Tiles, executor: Executor) -> None:
        """Return once the tiles that the executor is for are computed, by this process or another."""

    @abstractmethod
    def read(self) -> Array:
        """The values of a complete matrix."""


class MemoryMatrix(ScoreMatrix):
    """A matrix in an array of this process, which is filled."""

    def __init__(self, values: Array) -> None:
        super().__init__((len(values), values.shape[1]), values.dtype)
        self._values = values
        self._done: set[int] = set()
        self._count: int | None = None

    def is_complete(self) -> bool:
        return len(self._done) == self._count

    def compute(self, tiles: Tiles, executor: Executor) -> None:
        self._count = tiles.count
        executor.run("memory", range(tiles.count), self._done.__contains__, partial(self._write_tile, tiles))

    def _write_tile(self, tiles: Tiles, tile: int) -> None:
        for rows, columns, values in tiles.compute(tile):
            self._values[rows, columns] = values
        self._done.add(tile)

    def read(self) -> Array:
        return self._values


class StoredMatrix(ScoreMatrix):
    """A matrix in a store."""

    def __init__(
        self,
        group: zarr.Group,
        name: str,
        shape: tuple[int, int] = (0, 0),
        dtype: str = "float32",
        attributes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Give shape, dtype and attributes to compute or read it."""
        super().__init__(shape, dtype)
        self._group, self._name, self._path = group, name, f"{group.path}/{name}"
        self._attributes = dict(attributes)

    def _create(self, chunks: tuple[int, int]) -> None:
        """Create the array without values, unless it exists."""
        subgroup(self._group, self._name.rpartition("/")[0], {})
        new_array(self._group, self._name, self.shape, chunks, self.dtype.name, attributes=self._attributes)

    def is_corrupt(self) -> bool:
        """Whether the values differ from a recorded checksum."""
        return False

    def delete(self) -> None:
        """Delete the matrix."""
        check_inside(self._group, f"{self._name}/c/0/0")
        del self._group[self._name]


class LocalMatrix(StoredMatrix):
    """A matrix in a file of a local store, row by row; the file gets its name only when it is complete.

    Processes on several machines may write it. Network file systems are consistent only for files that were just
    opened and locked, so every access opens and locks the file; a tile counts as done once it is on disk. Tiles of an
    incomplete matrix are kept as long as any process computes it.
    """

    def __init__(self, root: Path, group: zarr.Group, name: str, *options: Any) -> None:
        super().__init__(group, name, *options)
        self._root, self.path = root, root / group.path / name / "c" / "0" / "0"
        self._partial = self.path.with_name(self.path.name + PARTIAL)
        self._done = self.path.with_name(f"{self.path.name}.done{PARTIAL}")

    def is_complete(self) -> bool:
        return self.path.exists()

    def compute(self, tiles: Tiles, executor: Executor) -> None:
        if self.is_complete():
            return
        with places.locked(self._root):
            check_inside(self._group, f"{self._name}/c/0/0")
            self._create(self.shape)
        try:
            with places.shared(self._root, places.SCORES, alone=self._delete_partial):
                if self._reserve(tiles.count):
                    self._run(tiles, executor)
        except BaseException:
            with places.locked(self._root):
                places.remove_leftovers(self._root)
            raise

    def read(self) -> Array:
        """All values, memory-mapped and read-only; a StoreError if the file is truncated."""
        row_array(self._group, self._name).read_chunk(0)
        return np.memmap(self.path, self.dtype, mode="r", shape=self.shape)

    def is_corrupt(self) -> bool:
        expected = self._group[self._name].attrs.get(CHECKSUM)
        return self.path.exists() and (not self.path.is_file() or expected not in (None, _crc(self.path)))

    def delete(self) -> None:
        check_inside(self._group, f"{self._name}/c/0/0")
        # Before the metadata: a kill in between must not leave a file that nothing deletes.
        shutil.rmtree(self.path) if self.path.is_dir() else delete(self.path)
        del self._group[self._name]

    def _delete_partial(self) -> None:
        delete(self._partial)
        delete(self._done)

    def _reserve(self, count: int) -> bool:
        """Create the half-written files; returns whether there is anything left to compute."""
        sizes = {self._partial: math.prod(self.shape) * self.dtype.itemsize, self._done: count}
        with places.locked(self._root), places.naming_full_disk(repr(str(self.path))):
            if self.path.exists():
                return False
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if any(not file.exists() or file.stat().st_size != size for file, size in sizes.items()):
                self._delete_partial()
                for file, size in sizes.items():
                    reserve(file, size)
        return True

    def _run(self, tiles: Tiles, executor: Executor) -> None:
        try:
            executor.run(self._path, range(tiles.count), self._are_done, partial(self._write_tile, tiles))
        except FileNotFoundError:
            if not self.path.exists():  # or another thread has completed it
                raise
        with places.locked(self._root):
            if not self.path.exists() and self._are_done(0, tiles.count):
                self._group[self._name].update_attributes({CHECKSUM: _crc(self._partial)})
                replace(self._partial, self.path)
                delete(self._done)

    def _are_done(self, first: int, count: int = 1) -> bool:
        try:
            with open_locked(self._done, write=False) as done:
                return read_at(done, count, first) == b"\1" * count
        except FileNotFoundError:  # another process has completed it
            return self.path.exists()

    def _write_tile(self, tiles: Tiles, tile: int) -> None:
        for rows, columns, values in tiles.compute(tile):
            data = np.ascontiguousarray(values, self.dtype)
            whole = columns.stop - columns.start == self.shape[1]
            with open_locked(self._partial, True) as file, places.naming_full_disk(repr(str(self.path))):
                for number, row in enumerate((data,) if whole else data, rows.start):
                    offset = (number * self.shape[1] + columns.start) * self.dtype.itemsize
                    write_at(file, row.data.cast("B"), offset)
        # Without the lock, which would keep others from writing meanwhile: all of it is written.
        sync_data(self._partial)
        with open_locked(self._done, write=True) as done:
            write_at(done, memoryview(b"\1"), tile)


class RemoteMatrix(StoredMatrix):
    """A matrix in an array of a store that is not a directory; a tile is a chunk, and done once that exists."""

    def is_complete(self) -> bool:
        return is_written(self._group, self._name)

    def compute(self, tiles: Tiles, executor: Executor) -> None:
        if self.is_complete():
            return
        chunks = min(tiles.shape[0], self.shape[0]), min(tiles.shape[1], self.shape[1])
        array = checked(self._group, self._name)
        if array is not None and (not isinstance(array, zarr.Array) or array.chunks != chunks):
            del self._group[self._name]  # another version's
        self._create(chunks)
        compute = partial(self._write_tile, tiles)
        executor.run(self._path, range(tiles.count), partial(self._is_done, tiles), compute)

    def read(self) -> Array:
        """All values, read into memory."""
        return np.asarray(self._group[self._name][...])  # type: ignore[index]

    def _is_done(self, tiles: Tiles, tile: int) -> bool:
        row, column = self._place(tiles, tile)
        return sync(self._group.store.exists(f"{self._path}/c/{row}/{column}"))

    def _place(self, tiles: Tiles, tile: int) -> tuple[int, int]:
        column, row = divmod(tile, -(-self.shape[0] // tiles.shape[0]))
        return row, column

    def _write_tile(self, tiles: Tiles, tile: int) -> None:
        row, column = self._place(tiles, tile)
        first, left = row * tiles.shape[0], column * tiles.shape[1]
        where = slice(first, first + tiles.shape[0]), slice(left, left + tiles.shape[1])
        whole = np.empty([len(range(size)[part]) for size, part in zip(self.shape, where, strict=True)], self.dtype)
        for rows, columns, values in tiles.compute(tile):
            whole[rows.start - first : rows.stop - first, columns.start - left : columns.stop - left] = values
        write_whole(self._group, self._name, whole, where)


def open_matrix(location: Location, group: zarr.Group, name: str, *options: Any) -> StoredMatrix:
    """The matrix of a name in a group of a store; options as for `StoredMatrix`."""
    root = places.local_root(location)
    return RemoteMatrix(group, name, *options) if root is None else LocalMatrix(root, group, name, *options)


def _crc(path: Path) -> int:
    """CRC-32 (ISO 3309) of a file."""
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(_READ_AT_ONCE):
            found = zlib.crc32(piece, found)
    return found
