"""A table of featurized examples: one row each, complete once it is marked done."""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zarr
from zarr.storage import LocalStore

from trak._utils.typing import Array
from trak.store.array_layout import row_array
from trak.store.checks import StoreError, checked
from trak.store.mapped_array import sync
from trak.store.row_array import new_array

CHUNK_BYTES = 64 * 2**20
OBJECT_BYTES = 8 * 2**20
"""The same where a chunk is an object, which is sent whole, and which processes deal out among them."""
DTYPES = ("float32", "float64", "float16", "int8")
SCALED = {"float16": 1.0, "int8": 127.0}
"""Types that hold rows relative to a scale of their own, and the magnitude of a row's largest number in them."""
_VERIFIED_ROWS = 8192
_COLUMNS = ("output", "out_to_loss_grad", "out_to_loss_curvature")


@dataclass(frozen=True)
class RowValues:
    """What is stored of B examples; see `Table` for the columns."""

    features: Array
    output: Array
    out_to_loss_grad: Array
    out_to_loss_curvature: Array
    data_hash: Array

    def take(self, rows: Array) -> "RowValues":
        """Some of the examples, by index or mask."""
        return RowValues(**{name: column[rows] for name, column in vars(self).items()})

    @classmethod
    def concatenated(cls, parts: Sequence["RowValues"]) -> "RowValues":
        """The examples of several, in order."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def _layout(rows: int, proj_dim: int, dtype: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array of a table by name, `done` last."""
    wide = "float64" if dtype == "float64" else "float32"
    columns = dict.fromkeys((*(("scale",) if dtype in SCALED else ()), *_COLUMNS), wide)
    columns |= {"data_hash": "uint64", "checksum": "uint32", "done": "uint8"}
    return {"features": ((rows, proj_dim), dtype)} | {name: ((rows,), stored) for name, stored in columns.items()}


def arrays(proj_dim: int, dtype: str) -> int:
    """Number of arrays of a table."""
    return len(_layout(1, proj_dim, dtype))


def row_bytes(proj_dim: int, dtype: str) -> int:
    """Bytes of one row in all arrays of a table."""
    return sum(math.prod(shape) * np.dtype(stored).itemsize for shape, stored in _layout(1, proj_dim, dtype).values())


def chunk_rows(rows: int, proj_dim: int, dtype: str, most_bytes: int | None = None) -> int:
    """Number of rows of each chunk of a table's arrays, by default in a directory."""
    chunks = max(1, -(-rows * proj_dim * np.dtype(dtype).itemsize // (most_bytes or CHUNK_BYTES)))
    return -(-rows // chunks)


class Table:
    """Rows of `features` (n, k) and of f, Q, R, a hash of the example, a checksum and `done`, (n,) each.

    With dtype float16 or int8 a row is stored relative to its largest magnitude, kept in `scale`, so that
    they cost digits and never range: 3 decimal ones are left in float16, 2 in int8. A row is marked
    done only when its other columns are on disk.
    """

    def __init__(self, group: zarr.Group, rows: int, proj_dim: int, dtype: str) -> None:
        """Raise a StoreError if an array is missing, or of another shape than these say."""
        layout = _layout(rows, proj_dim, dtype)
        self.group, self._arrays = group, {name: row_array(group, name) for name in layout}
        self.features, self.done = self._arrays["features"], self._arrays["done"]
        self._hash, self._checksum = self._arrays["data_hash"], self._arrays["checksum"]
        # In the order in which they are summed.
        self._small = {name: self._arrays[name] for name in (*_COLUMNS, "data_hash", "scale") if name in layout}
        for name, (shape, expected) in layout.items():
            array = self._arrays[name]
            if array.shape != shape or array.dtype != np.dtype(expected):
                raise StoreError(
                    f"array {name!r} in {group.path} of {group.store} is {array.dtype} {array.shape}, where the store "
                    f"has {expected} {shape}; restore its metadata from a copy"
                )

    @classmethod
    def create(cls, group: zarr.Group, rows: int, proj_dim: int, dtype: str) -> "Table":
        """The table in `group`, its missing arrays created; `done` is made last."""
        if checked(group, "done") is not None:
            return cls(group, rows, proj_dim, dtype)
        size = CHUNK_BYTES if isinstance(group.store, LocalStore) else OBJECT_BYTES
        together = chunk_rows(rows, proj_dim, dtype, size)
        for name, (shape, stored) in _layout(rows, proj_dim, dtype).items():
            new_array(group, name, shape, (together, *shape[1:]), stored)
        return cls(group, rows, proj_dim, dtype)

    def __len__(self) -> int:
        return len(self.features)

    def is_done(self, indices: Array | None = None) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows, or which of some, are done: bool (n,)."""
        return self.done.take(indices) == 1

    def undone(self) -> list[tuple[int, int]]:
        """The rows that are not done, as ascending ranges (start, stop); it costs no more than what is stored."""
        found: list[tuple[int, int]] = []
        covered = 0
        for chunk in self.done.stored_chunks():
            first, rows = chunk * self.done.chunk_rows, self.done.read_chunk(chunk)
            edges = first + np.flatnonzero(np.diff(np.concatenate([[1], rows == 1, [1]]).astype(np.int8)))
            found += [(covered, first), *zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
            covered = first + len(rows)
        return joined([*found, (covered, len(self))])

    def count_undone(self) -> int:
        """The number of rows that are not done."""
        return sum(stop - start for start, stop in self.undone())

    def hashes(self, indices: Array | slice) -> Array:
        """The stored hashes of some examples."""
        return self._hash.read()[indices] if isinstance(indices, slice) else self._hash.take(indices)

    def refresh(self) -> None:
        """Make sure of seeing which rows other machines have done."""
        self.done.refresh()
        self._hash.refresh()

    def write(self, indices: Array, values: RowValues) -> None:
        """Store rows. Those already done for the same example are left as they are; others are marked undone first."""
        done = self.is_done(indices)
        left = ~(done & (self.hashes(indices) == values.data_hash)) if done.any() else ~done
        if not left.all():
            indices, done, values = indices[left], done[left], values.take(left)
        self._mark_undone(indices[done])
        features, small = values.features, dict(vars(values))
        if "scale" in self._small:
            features, small["scale"] = _scaled(features, self.features.dtype)
        features = np.ascontiguousarray(features, self.features.dtype)
        self.features.write(indices, features)
        for name, column in self._small.items():
            column.write(indices, small[name])
        self._checksum.write(indices, _checksums(features, self._packed(small)))
        sync(self.features, self._checksum, *self._small.values())
        # Not synced: a mark that a power cut loses costs computing the row again and nothing else.
        self.done.write(indices, np.ones(len(indices), np.uint8))

    def chunks(self, only: int | None = None) -> Iterator[tuple[int, Array]]:
        """The number of each chunk of `features`, or of one of them, and the indices of its rows: as much as may be
        read at once of whatever else is stored of them.

        Raises:
            StoreError: if hardly any rows of all chunks are stored.
        """
        if only is None:
            self.features.check_stored()
        for chunk in range(self.features.chunks) if only is None else (only,):
            first = chunk * self.features.chunk_rows
            yield chunk, np.arange(first, min(first + self.features.chunk_rows, len(self)))

    def column(self, name: str, indices: Array | None = None) -> Array:
        """`output`, `out_to_loss_grad` or `out_to_loss_curvature` of all examples, or of some."""
        return self._small[name].take(indices)

    def scales(self, indices: Array | None = None) -> Array | None:
        """What the rows of `features`, or some of them, are to be multiplied by, or None for 1."""
        return self._small["scale"].take(indices) if "scale" in self._small else None

    def take(self, indices: Array, dtype: Any) -> Array:
        """The features of some examples, scaled, in a floating-point dtype: (len(indices), k)."""
        features, scales = self.features.take(indices).astype(dtype), self.scales(indices)
        if scales is not None:
            features *= scales[:, None]
        return features

    def corrupt(self, only: int | None = None) -> Iterator[Array]:
        """Indices of rows, of all chunks or of one, that are done and differ from the checksum taken when they were
        written, some at a time."""
        for chunk, rows in self.chunks(only):
            done, expected = self.is_done(rows), self._checksum.take(rows)
            columns = self._packed({name: column.take(rows) for name, column in self._small.items()})
            for start, stop, features in self.features.blocks(_VERIFIED_ROWS, chunk):
                these = slice(start - rows[0], stop - rows[0])
                wrong = done[these] & (_checksums(features, columns[these]) != expected[these])
                if wrong.any():
                    yield rows[these][wrong]

    def verify(self, only: int | None = None) -> None:
        """Compare every row that is done, of all chunks or of one, with the checksum taken when it was written.

        Raises:
            StoreError: naming the first row that differs.
        """
        for rows in self.corrupt(only):
            raise self._is_corrupt(rows[0])

    def verify_rows(self, indices: Array) -> None:
        """Compare some rows with the checksums taken when they were written.

        Raises:
            StoreError: naming the first row that differs.
        """
        columns = self._packed({name: column.take(indices) for name, column in self._small.items()})
        wrong = _checksums(self.features.take(indices), columns) != self._checksum.take(indices)
        if wrong.any():
            raise self._is_corrupt(indices[wrong][0])

    def _is_corrupt(self, row: int) -> StoreError:
        return StoreError(
            f"chunk {row // self.features.chunk_rows} of {self.group.path} in {self.group.store} is corrupt: row "
            f"{row} differs from the checksum taken when it was written; restore it from a copy, or mark it as "
            "not done by trak repair and run the same script again, which computes it"
        )

    def repair(self) -> int:
        """Mark corrupt rows as not done, including those of truncated chunks; returns their number."""
        for array in self._arrays.values():
            array.fill_up()
        wrong = np.concatenate([np.empty(0, np.int64), *self.corrupt()])
        self._mark_undone(wrong)
        return len(wrong)

    def _mark_undone(self, indices: Array) -> None:
        if len(indices):
            self.done.write(indices, np.zeros(len(indices), np.uint8))
            sync(self.done)

    def _packed(self, values: Mapping[str, Array]) -> Array:
        """The bytes of the small columns, row by row: uint8 (rows, width)."""
        return np.hstack([_bytes(np.asarray(values[name], array.dtype)) for name, array in self._small.items()])


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges (start, stop), those that touch joined and empty ones left out."""
    found: list[tuple[int, int]] = []
    for start, stop in ranges:
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        elif start < stop:
            found.append((start, stop))
    return found


def _scaled(features: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Features relative to each row's largest magnitude, in one of the types `SCALED`, and what they are to be
    multiplied by."""
    scale = np.abs(features).max(axis=1) / SCALED[dtype.name]
    scale[scale == 0] = 1
    features = features / scale[:, None]
    if dtype.kind == "i":
        return np.rint(features).astype(dtype), scale
    # The same bits as NumPy's, an order of magnitude faster.
    return torch.from_numpy(features).to(torch.float16).numpy(), scale


def _checksums(features: Array, columns: Array) -> Array:
    """CRC-32 (ISO 3309) of each row: uint32 (rows,)."""
    pairs = zip(_bytes(features), columns, strict=True)
    return np.array([zlib.crc32(column.data, zlib.crc32(row.data)) for row, column in pairs], np.uint32)


def _bytes(rows: Array) -> Array:
    """Row by row: uint8 (rows, width)."""
    width = int(np.prod(rows.shape[1:], dtype=np.int64)) * rows.itemsize
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), width)
