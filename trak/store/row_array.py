"""Arrays of rows in a zarr group."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import ContainsArrayError

from trak._utils.typing import Array
from trak.store.checks import StoreError, check_inside, checked

SPARE = 64 * 2**20
"""Bytes of zeros that may be made up for what isn't stored, besides a multiple of what is."""


def new_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, **options: Any
) -> None:
    """Create an array, by default uncompressed, unless it exists."""
    check_inside(group, name)
    if checked(group, name) is not None:
        return
    options = {"compressors": None, "fill_value": 0, **options}
    try:
        group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, **options)
    except ContainsArrayError as error:
        where = group.store_path
        if checked(group, name) is None:  # else another process has just made it
            raise StoreError(f"{name!r} in {where} can't be read as zarr; restore it or delete it") from error


class RowArray(ABC):
    """Rows of one dtype, chunked along the first dimension."""

    whole_chunks = False
    """Whether changing a row means to write its chunk anew."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)
        self.chunk_rows, self.chunks = array.chunks[0], -(-array.shape[0] // array.chunks[0])
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._chunk_bytes = self.chunk_rows * self._row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def stored_chunks(self) -> list[int]:
        """Numbers of the chunks that anything was written to, in order."""

    def check_stored(self) -> None:
        """Before reading it all, since metadata can claim any size: a StoreError if hardly any rows are stored."""
        present = len(self.stored_chunks())
        if (self.chunks - present) * self._chunk_bytes > SPARE + 64 * present * self._chunk_bytes:
            raise StoreError(
                f"{self.array.path} in {self.array.store} should have {len(self):,} rows, and {present} of its "
                f"{self.chunks:,} chunks are there; featurize what is missing, or restore it from a copy"
            )

    @abstractmethod
    def write(self, indices: Array, values: Array) -> None:
        """Put each value at the row of its index; other processes see it at once, and it is on disk after `sync`."""

    def unsynced(self) -> list[Path]:
        """Files written to since the last call, for `sync`."""
        return []

    def refresh(self) -> None:
        """Make sure of seeing what other machines wrote: network file systems promise it only of files opened since."""

    def fill_up(self) -> None:
        """Give truncated chunks their size back, with zeros."""

    @abstractmethod
    def read_chunk(self, chunk: int) -> Array:
        """The rows of a chunk, zeros where nothing was written."""

    def read(self) -> Array:
        """All rows, in memory; a StoreError if hardly any of them are stored."""
        self.check_stored()
        found = np.empty(self.shape, self.dtype)
        for chunk in range(self.chunks):
            found[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows] = self.read_chunk(chunk)
        return found

    def take(self, indices: Array | None) -> Array:
        """Some rows, or all, in memory; reads no more than the chunks that hold them."""
        if indices is None:
            return self.read()
        found = np.empty((len(indices), *self.shape[1:]), self.dtype)
        chunks = indices // self.chunk_rows
        for chunk in np.unique(chunks).tolist():
            here = chunks == chunk
            found[here] = self.read_chunk(chunk)[indices[here] - chunk * self.chunk_rows]
        return found

    def blocks(self, max_rows: int, chunk: int | None = None) -> Iterator[tuple[int, int, Array]]:
        """(start, stop, rows) pieces of at most `max_rows` rows, in order, of all chunks or of one."""
        if chunk is None:
            self.check_stored()
        for number in range(self.chunks) if chunk is None else (chunk,):
            rows, first = self.read_chunk(number), number * self.chunk_rows
            for start in range(0, len(rows), max_rows):
                piece = rows[start : start + max_rows]
                yield first + start, first + start + len(piece), piece
