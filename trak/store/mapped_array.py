"""Arrays of rows in a directory, mapped into memory."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from trak._utils.platform import open_locked, replace, reserve, sync_data, write_at
from trak._utils.typing import Array
from trak.store.checks import StoreError, check_path_inside
from trak.store.location import PARTIAL, locked, naming_full_disk
from trak.store.row_array import SPARE, RowArray


class MappedArray(RowArray):
    """Reads are memory maps of the chunk files, writes go to their place in them.

    Space is reserved when a chunk's first row is written, so that a full disk is an error then and
    not a crash later. Writers of different rows never disturb each other. Only the last chunk that was read stays
    mapped, since each map takes a file descriptor and address space; mapping it again costs microseconds.
    """

    def __init__(self, array: zarr.Array[Any], root: Path) -> None:
        super().__init__(array)
        self._root, self._directory = root, root / array.path / "c"
        self._mapped: tuple[int, Array] | None = None
        self._unsynced: set[Path] = set()

    def _file(self, chunk: int) -> Path:
        return self._directory.joinpath(str(chunk), *("0" for _ in self.shape[1:]))

    def stored_chunks(self) -> list[int]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if name.isdecimal() and int(name) < self.chunks)

    def _prepare(self, chunk: int) -> Path:
        """The file of a chunk, made if it is missing."""
        path = self._file(chunk)
        check_path_inside(path, self._root)
        if not path.exists():
            with locked(self._root), naming_full_disk(f"{self.array.path} in {str(self._root)!r}"):
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    partial = path.with_name(path.name + PARTIAL)
                    reserve(partial, self._chunk_bytes)
                    replace(partial, path)
        self._check_size(path)
        return path

    def _check_size(self, path: Path) -> None:
        status, expected = path.stat(), self._chunk_bytes
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"chunk {str(path)!r} is no file; restore it from a copy")
        if status.st_size < expected:
            raise StoreError(
                f"chunk {str(path)!r} is truncated: {status.st_size} bytes instead of {expected}; restore it from a "
                "copy, or fill it up by trak repair and run the same script again, which computes what is lost"
            )

    def write(self, indices: Array, values: Array) -> None:
        if not len(indices):
            return
        order = np.argsort(indices, kind="stable")
        indices, values = indices[order], np.ascontiguousarray(values[order], dtype=self.dtype)
        chunks = indices // self.chunk_rows
        new_run = (np.diff(indices) != 1) | (np.diff(chunks) != 0)
        bounds = [0, *(np.flatnonzero(new_run) + 1).tolist(), len(indices)]
        descriptors: dict[int, int] = {}
        with naming_full_disk(f"{self.array.path} in {str(self._root)!r}"), ExitStack() as opened:
            for start, stop in pairwise(bounds):
                chunk = int(chunks[start])
                if chunk not in descriptors:
                    path = self._prepare(chunk)
                    descriptors[chunk] = opened.enter_context(open_locked(path, write=True))
                    self._unsynced.add(path)
                offset = (int(indices[start]) - chunk * self.chunk_rows) * self._row_bytes
                write_at(descriptors[chunk], values[start:stop].data.cast("B"), offset)

    def unsynced(self) -> list[Path]:
        files, self._unsynced = sorted(self._unsynced), set()
        return files

    def refresh(self) -> None:
        self._mapped = None

    def fill_up(self) -> None:
        self._mapped = None
        for chunk in self.stored_chunks():
            path = self._file(chunk)
            if path.is_file() and path.stat().st_size < self._chunk_bytes:
                check_path_inside(path, self._root)
                os.truncate(path, self._chunk_bytes)

    def read_chunk(self, chunk: int) -> Array:
        rows = min(self.chunk_rows, len(self) - chunk * self.chunk_rows)
        mapped = self._mapped  # which another thread may forget meanwhile
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
            mapped = self._mapped = (
                chunk,
                np.memmap(path, self.dtype, mode="c", shape=(self.chunk_rows, *self.shape[1:])),
            )
        return mapped[1][:rows]


def sync(*arrays: RowArray) -> None:
    """Return once everything written to the arrays is on disk."""
    files = [path for array in arrays for path in array.unsynced()]
    if files:
        # At the same time, so that the file system's journal commits once for all of them.
        with ThreadPoolExecutor(len(files)) as pool:
            list(pool.map(_sync_file, files))


def _sync_file(path: Path) -> None:
    with naming_full_disk(repr(str(path))):
        sync_data(path)
