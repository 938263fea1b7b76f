"""Arrays of rows in a directory, mapped into memory."""

import fcntl
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from trak.store.checks import StoreError, check_path_inside
from trak.store.location import PARTIAL, locked, naming_full_disk
from trak.store.row_array import SPARE, RowArray, Rows


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
                "fill it up by trak repair and run the same script again, which computes what is lost"
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
                if rows * self._row_bytes > SPARE + self._row_bytes:
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
