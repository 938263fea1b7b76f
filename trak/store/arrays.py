"""Arrays of rows in a zarr group: mapped into memory on a local file system, through zarr elsewhere."""

import fcntl
import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import ContainsArrayError
from zarr.storage import LocalStore

from trak.store.buckets import Bucket
from trak.store.checks import StoreError, check_inside, check_path_inside, checked
from trak.store.location import PARTIAL, locked, naming_full_disk

Rows = np.ndarray[Any, Any]


_SPARE = 64 * 2**20
"""Bytes of zeros that may be made up for what isn't stored, besides a multiple of what is."""
_LISTED = 4096


def new_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, **options: Any
) -> None:
    """Create an array, by default uncompressed, unless it exists."""
    check_inside(group, name)
    if checked(group, name) is None:
        options = {"compressors": None, "fill_value": 0, **options}
        with suppress(ContainsArrayError):  # another process has just made it
            group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, **options)


class RowArray(ABC):
    """Rows of one dtype, chunked along the first dimension."""

    whole_chunks = False
    """Whether changing a row means to write its chunk anew."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)
        self.chunk_rows = array.chunks[0]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-len(self) // self.chunk_rows)

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @abstractmethod
    def stored_chunks(self) -> list[int]:
        """Numbers of the chunks that anything was written to, in order."""

    def check_stored(self) -> None:
        """Before reading it all, since metadata can claim any size.

        Raises:
            StoreError: if hardly any of the rows are stored.
        """
        present, chunk = len(self.stored_chunks()), self.chunk_rows * self._row_bytes
        made_up = (self.chunks - present) * chunk
        if made_up > _SPARE + 64 * present * chunk:
            raise StoreError(
                f"{self.array.path} in {self.array.store} should have {len(self):,} rows, and {present} of its "
                f"{self.chunks:,} chunks are there; featurize what is missing, or restore it from a copy"
            )

    @abstractmethod
    def write(self, indices: Rows, values: Rows) -> None:
        """Put `values[i]` at row `indices[i]`; every process sees it from then on, on disk it is after `sync`."""

    def unsynced(self) -> list[Path]:
        """Files written to since the last call, for `sync`."""
        return []

    def refresh(self) -> None:
        """Make sure of seeing what other machines wrote: network file systems promise it only of files opened since."""

    def fill_up(self) -> None:
        """Give truncated chunks their size back, with zeros."""

    @abstractmethod
    def read_chunk(self, chunk: int) -> Rows:
        """The rows of a chunk, zeros where nothing was written."""

    def read(self) -> Rows:
        """All rows, in memory.

        Raises:
            StoreError: if hardly any of them are stored.
        """
        self.check_stored()
        found = np.empty(self.shape, self.dtype)
        for chunk in range(self.chunks):
            found[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows] = self.read_chunk(chunk)
        return found

    def take(self, indices: Rows) -> Rows:
        """Some rows, in memory; reads no more than the chunks that hold them."""
        found = np.empty((len(indices), *self.shape[1:]), self.dtype)
        chunks = indices // self.chunk_rows
        for chunk in np.unique(chunks).tolist():
            here = chunks == chunk
            found[here] = self.read_chunk(chunk)[indices[here] - chunk * self.chunk_rows]
        return found

    def blocks(self, max_rows: int, chunk: int | None = None) -> Iterator[tuple[int, int, Rows]]:
        """(start, stop, rows) pieces of at most `max_rows` rows, in order, of all chunks or of one.

        Raises:
            StoreError: if hardly any of all of them are stored.
        """
        if chunk is None:
            self.check_stored()
        for number in range(self.chunks) if chunk is None else (chunk,):
            rows, first = self.read_chunk(number), number * self.chunk_rows
            for start in range(0, len(rows), max_rows):
                piece = rows[start : start + max_rows]
                yield first + start, first + start + len(piece), piece


class RemoteArray(RowArray):
    """Through zarr's own path. Writers at the same time may share a chunk of a `Bucket`, and must not elsewhere."""

    whole_chunks = True

    def write(self, indices: Rows, values: Rows) -> None:
        chunks = indices // self.chunk_rows
        for chunk in np.unique(chunks).tolist():
            here = chunks == chunk
            self._write_in(chunk, indices[here] - chunk * self.chunk_rows, np.asarray(values)[here])

    def _write_in(self, chunk: int, places: Rows, values: Rows) -> None:
        first, store = chunk * self.chunk_rows, self.array.store
        size = min(self.chunk_rows, len(self) - first)
        if len(np.unique(places)) == size:
            rows = np.empty((size, *self.shape[1:]), self.dtype)
            rows[places] = values
            self.array[first : first + size] = rows
        elif isinstance(store, Bucket):
            store.change(self._key(chunk), lambda found: self._changed(chunk, found, places, values))
        else:
            self.array.set_orthogonal_selection((places + first,), values)

    def _key(self, chunk: int) -> str:
        return "/".join([self.array.path, "c", str(chunk), *("0" for _ in self.shape[1:])])

    def _changed(self, chunk: int, found: bytes | None, places: Rows, values: Rows) -> bytes:
        rows = np.zeros((self.chunk_rows, *self.shape[1:]), self.dtype)
        if found is not None:
            if len(found) != rows.nbytes:
                raise StoreError(
                    f"chunk {chunk} of {self.array.path} in {self.array.store} has {len(found)} bytes instead of "
                    f"{rows.nbytes}; restore it from a copy"
                )
            rows[...] = np.frombuffer(found, self.dtype).reshape(rows.shape)
        rows[places] = values
        return rows.tobytes()

    def stored_chunks(self) -> list[int]:
        # More than these aren't looked for: zarr compares each with all.
        if self.chunks <= _LISTED and not self.array.nchunks_initialized:
            return []
        return list(range(self.chunks))

    def read_chunk(self, chunk: int) -> Rows:
        return np.asarray(self.array[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows])


class MappedArray(RowArray):
    """Reads are memory maps of the chunk files, writes go to their place in them.

    Space is reserved when a chunk's first row is written, so that a full disk is an error then and
    not a crash later. Writers of different rows never disturb each other. Only the last chunk that was read stays
    mapped, since each map takes a file descriptor and address space; mapping it again costs microseconds.
    """

    def __init__(self, array: zarr.Array[Any], root: Path) -> None:
        super().__init__(array)
        self._root = root
        self._directory = root / array.path / "c"
        self._mapped: tuple[int, Rows] | None = None
        self._unsynced: set[Path] = set()

    def _file(self, chunk: int) -> Path:
        return self._directory.joinpath(str(chunk), *("0" for _ in self.shape[1:]))

    def stored_chunks(self) -> list[int]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if name.isdecimal() and int(name) < self.chunks)

    def _open_for_writing(self, chunk: int) -> int:
        path = self._file(chunk)
        check_path_inside(path, self._root)
        if not path.exists():
            with locked(self._root), naming_full_disk(f"{self.array.path} in {str(self._root)!r}"):
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    partial = path.with_name(path.name + PARTIAL)
                    reserve(partial, self.chunk_rows * self._row_bytes)
                    os.replace(partial, path)
        self._check_size(path)
        descriptor = os.open(path, os.O_RDWR)
        # Of a file without locks, a network file system's client may write back whole pages, with stale rows in them.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def _check_size(self, path: Path) -> None:
        status, expected = path.stat(), self.chunk_rows * self._row_bytes
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"chunk {str(path)!r} is no file; restore it from a copy")
        if size < expected:
            raise StoreError(
                f"chunk {str(path)!r} is truncated: {size} bytes instead of {expected}; restore it from a copy, or "
                "fill it up by python -m trak repair and run the same script again, which computes what is lost"
            )

    def write(self, indices: Rows, values: Rows) -> None:
        if not len(indices):
            return
        order = np.argsort(indices, kind="stable")
        indices, values = indices[order], np.ascontiguousarray(values[order], dtype=self.dtype)
        chunks = indices // self.chunk_rows
        new_run = (np.diff(indices) != 1) | (np.diff(chunks) != 0)
        bounds = [0, *(np.flatnonzero(new_run) + 1).tolist(), len(indices)]
        descriptors: dict[int, int] = {}
        try:
            with naming_full_disk(f"{self.array.path} in {str(self._root)!r}"):
                for start, stop in pairwise(bounds):
                    chunk = int(chunks[start])
                    if chunk not in descriptors:
                        descriptors[chunk] = self._open_for_writing(chunk)
                        self._unsynced.add(self._file(chunk))
                    offset = (int(indices[start]) - chunk * self.chunk_rows) * self._row_bytes
                    write_all(descriptors[chunk], values[start:stop].data.cast("B"), offset)
        finally:
            for descriptor in descriptors.values():
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing leaves it to a loader's worker that was just forked
                os.close(descriptor)

    def unsynced(self) -> list[Path]:
        files, self._unsynced = sorted(self._unsynced), set()
        return files

    def refresh(self) -> None:
        self._mapped = None

    def fill_up(self) -> None:
        self._mapped = None
        for chunk in self.stored_chunks():
            path, size = self._file(chunk), self.chunk_rows * self._row_bytes
            if path.is_file() and path.stat().st_size < size:
                check_path_inside(path, self._root)
                os.truncate(path, size)

    def read_chunk(self, chunk: int) -> Rows:
        rows = min(self.chunk_rows, len(self) - chunk * self.chunk_rows)
        mapped = self._mapped
        if mapped is None or mapped[0] != chunk:
            path = self._file(chunk)
            try:
                self._check_size(path)
            except FileNotFoundError:
                if rows * self._row_bytes > _SPARE + self._row_bytes:
                    raise StoreError(
                        f"{self.array.path} in {str(self._root)!r} has chunks of {rows:,} rows, more than this library "
                        "makes; restore its metadata from a copy"
                    ) from None
                return np.zeros((rows, *self.shape[1:]), self.dtype)
            # Copy-on-write maps are writable memory to torch, and never reach the file.
            mapped = chunk, np.memmap(path, self.dtype, mode="c", shape=(self.chunk_rows, *self.shape[1:]))
            self._mapped = mapped
        return mapped[1][:rows]


def sync(*arrays: RowArray) -> None:
    """Return once everything written to the arrays is on disk."""
    files = [path for array in arrays for path in array.unsynced()]
    if files:
        # At the same time, so that the file system's journal commits once for all of them.
        with ThreadPoolExecutor(len(files)) as pool:
            list(pool.map(_sync_file, files))


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        with naming_full_disk(repr(str(path))):
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def reserve(path: Path, size: int) -> None:
    """Make a file of zeros whose space is reserved on disk, or no file."""
    with open(path, "wb") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, size)
        except BaseException:
            path.unlink()
            raise


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write bytes to their place in a file."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _plain(array: zarr.Array[Any]) -> bool:
    """Whether chunks are files of numbers as they are in memory, by their number."""
    found = array.metadata.to_dict()
    codecs, keys = found.get("codecs"), found.get("chunk_key_encoding")
    separated = {"name": "default", "configuration": {"separator": "/"}}
    return keys == separated and codecs in (
        ({"name": "bytes"},), ({"name": "bytes", "configuration": {"endian": "little"}},),
    )  # fmt: skip


def row_array(group: zarr.Group, name: str) -> RowArray:
    """The array `name` of a group.

    Raises:
        StoreError: if it is missing or is not laid out as this library lays arrays out.
    """
    array = checked(group, name)
    where = f"{group.path or '/'} of {group.store}"
    if array is None:
        raise StoreError(f"array {name!r} is missing from {where}; is the store complete?")
    if not isinstance(array, zarr.Array) or array.ndim < 1 or array.chunks[1:] != array.shape[1:]:
        raise StoreError(f"{name!r} in {where} is not an array of rows chunked along its first dimension")
    if not 1 <= array.chunks[0] <= array.shape[0] or array.dtype.kind not in "iuf" or not _plain(array):
        raise StoreError(
            f"array {name!r} in {where} is not laid out as this library writes it, with rows and without compression; "
            "restore its metadata from a copy"
        )
    if isinstance(group.store, LocalStore):
        return MappedArray(array, Path(group.store.root))
    return RemoteArray(array)
