"""A table of featurized examples: one row each, complete once it is marked done."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from trak.store.arrays import RowArray, Rows, StoreError, new_array, row_array, sync

CHUNK_BYTES = 64 * 2**20
DTYPES = ("float32", "float64", "float16")
_COLUMNS = ("output", "out_to_loss_grad", "out_to_loss_curvature")


@dataclass(frozen=True)
class RowValues:
    """What is stored of B examples; see `Table` for the columns."""

    features: Rows
    output: Rows
    out_to_loss_grad: Rows
    out_to_loss_curvature: Rows
    data_hash: Rows


class Table:
    """Rows of `features` (n, k) and of f, Q, R, a hash of the example and `done`, (n,) each.

    With dtype float16 a row is stored divided by its largest magnitude, kept in `scale`, so that
    half precision costs digits and never range. A row is marked done only when its other columns
    are on disk.
    """

    def __init__(self, group: zarr.Group) -> None:
        self.group = group
        self.features = row_array(group, "features")
        self.done = row_array(group, "done")
        self._hash = row_array(group, "data_hash")
        self._columns = {name: row_array(group, name) for name in _COLUMNS}
        self._scale = row_array(group, "scale") if self.features.dtype == np.float16 else None

    @classmethod
    def create(cls, group: zarr.Group, rows: int, proj_dim: int, dtype: str) -> "Table":
        """The table in `group`, its missing arrays created; `done` is made last."""
        if "done" in group:
            return cls(group)
        chunks = max(1, -(-rows * proj_dim * np.dtype(dtype).itemsize // CHUNK_BYTES))
        chunk_rows = -(-rows // chunks)
        wide = "float64" if dtype == "float64" else "float32"
        new_array(group, "features", (rows, proj_dim), chunk_rows, dtype)
        if dtype == "float16":
            new_array(group, "scale", (rows,), chunk_rows, wide)
        for name in _COLUMNS:
            new_array(group, name, (rows,), chunk_rows, wide)
        new_array(group, "data_hash", (rows,), chunk_rows, "uint64")
        new_array(group, "done", (rows,), chunk_rows, "uint8")
        return cls(group)

    def __len__(self) -> int:
        return len(self.features)

    def is_done(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows are done, bool (n,)."""
        return self.done.read() == 1

    def hashes(self, indices: Rows | slice) -> Rows:
        """The stored hashes of some examples."""
        return self._hash.read()[indices]

    def write(self, indices: Rows, values: RowValues) -> None:
        """Store rows; rows already done are marked undone first."""
        redone = indices[self.is_done()[indices]]
        if len(redone):
            self.done.write(redone, np.zeros(len(redone), np.uint8))
            sync(self.done)
        features = values.features
        if self._scale is not None:
            scale = np.abs(features).max(axis=1)
            scale[scale == 0] = 1
            features = features / scale[:, None]
            self._scale.write(indices, scale)
        self.features.write(indices, features)
        for name, column in self._columns.items():
            column.write(indices, getattr(values, name))
        self._hash.write(indices, values.data_hash)
        sync(self.features, self._hash, *self._columns.values(), *([] if self._scale is None else [self._scale]))
        # Not synced: a mark that a power cut loses costs computing the row again and nothing else.
        self.done.write(indices, np.ones(len(indices), np.uint8))

    def column(self, name: str) -> Rows:
        """All of `output`, `out_to_loss_grad` or `out_to_loss_curvature`."""
        return self._columns[name].read()

    def scales(self) -> Rows | None:
        """What the rows of `features` are to be multiplied by, or None for 1."""
        return None if self._scale is None else self._scale.read()

    def _checked_arrays(self) -> dict[str, RowArray]:
        arrays = {"features": self.features, **self._columns}
        return arrays if self._scale is None else {**arrays, "scale": self._scale}

    def checksums(self) -> np.ndarray[Any, np.dtype[np.uint32]]:
        """Checksums of what is stored, (columns, chunks)."""
        return np.array(
            [[array.checksum(i) for i in range(array.chunks)] for array in self._checked_arrays().values()], np.uint32
        )

    def verify(self, expected: Rows) -> None:
        """Compare with checksums taken before.

        Raises:
            StoreError: naming the first chunk that differs.
        """
        found = self.checksums()
        if found.shape != expected.shape or (found != expected).any():
            different = np.argwhere(found != expected)[0] if found.shape == expected.shape else (0, 0)
            array = list(self._checked_arrays().values())[int(different[0])]
            raise StoreError(
                f"chunk {int(different[1])} of {array.array.path} in {self.group.store} is corrupt: its checksum "
                "differs from the one taken when the checkpoint was finalized; restore it from a copy, or delete "
                "the checkpoint's directory and featurize it again"
            )
