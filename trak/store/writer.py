"""Writing while the next rows are computed, so that waiting for the disk costs nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from trak.store.table import RowValues, Table


class Writer:
    """Writes rows at once, or while `overlapped`, one batch at a time behind the caller's back.

    Where a chunk is one object, rows are then kept until they fill one: else each batch would send all of it anew.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._rows = np.empty(0, np.int64)
        self._table: Table | None = None
        self._kept: list[tuple[np.ndarray, RowValues]] = []
        """Rows of that table which wait for others of their chunk."""

    @contextmanager
    def overlapped(self) -> Iterator[None]:
        """While entered, `write` returns before the rows are on disk, and a write that failed raises where the caller
        next writes or waits, or leaves.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="trak-writer") as self._pool:
            try:
                yield
                self.wait()
            finally:
                self._pool = self._pending = self._table = None
                self._kept = []

    def write(self, table: Table, indices: np.ndarray, values: RowValues, then: Callable[[], None]) -> None:
        """`table.write`, and afterwards `then()`, also if it failed."""
        if self._pool is None:
            _write(table, indices, values, then)
        elif table.features.whole_chunks:
            then()  # there are no claims to be held until then
            if self._table is not table:
                self._flush()
            self._table = table
            self._kept.append((indices, values))
            if sum(len(rows) for rows, _ in self._kept) >= min(table.features.chunk_rows, len(table)):
                self._submit_full_chunks(table)
        else:
            self._submit(table, indices, values, then)

    def _submit_full_chunks(self, table: Table) -> None:
        """Write the rows of full chunks, or all rows if no chunk is full."""
        (rows, together), size = self._joined(), table.features.chunk_rows
        chunks, counts = np.unique(rows // size, return_counts=True)
        full = chunks[counts == np.minimum(size, len(table) - chunks * size)]
        ready = np.isin(rows // size, full) if len(full) else np.ones(len(rows), bool)
        self._kept = [] if ready.all() else [(rows[~ready], together.take(~ready))]
        self._submit(table, rows[ready], together.take(ready), lambda: None)

    def _joined(self) -> tuple[np.ndarray, RowValues]:
        rows, values = zip(*self._kept, strict=True)
        return np.concatenate(rows), RowValues.concatenated(values)

    def _submit(self, table: Table, indices: np.ndarray, values: RowValues, then: Callable[[], None]) -> None:
        assert self._pool is not None  # called while overlapped
        try:
            self._wait_for_pending()
        except BaseException:
            then()
            raise
        self._rows, self._pending = indices, self._pool.submit(_write, table, indices, values, then)

    def wait(self, indices: np.ndarray | None = None) -> None:
        """Return once nothing is pending, or nothing of these rows; raises what the write raised."""
        if indices is None or any(np.isin(indices, rows).any() for rows, _ in self._kept):
            self._flush()
        if self._pending is not None and (indices is None or np.isin(indices, self._rows).any()):
            self._wait_for_pending()

    def _flush(self) -> None:
        if self._table is not None and self._kept:
            ready, self._kept = self._joined(), []
            self._submit(self._table, *ready, lambda: None)

    def _wait_for_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _write(table: Table, indices: np.ndarray, values: RowValues, then: Callable[[], None]) -> None:
    try:
        table.write(indices, values)
    finally:
        then()
