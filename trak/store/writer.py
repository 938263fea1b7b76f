"""Writing while the next rows are computed, so that waiting for the disk costs nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from trak.store.table import RowValues, Table


class Writer:
    """Writes rows at once, or while `overlapped`, one batch at a time behind the caller's back."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._rows: np.ndarray = np.empty(0, np.int64)

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
                self._pool = self._pending = None

    def write(self, table: Table, indices: np.ndarray, values: RowValues, then: Callable[[], None]) -> None:
        """`table.write`, and afterwards `then()`, also if it failed."""

        def work() -> None:
            try:
                table.write(indices, values)
            finally:
                then()

        if self._pool is None:
            work()
            return
        try:
            self.wait()
        except BaseException:
            then()
            raise
        self._rows, self._pending = indices, self._pool.submit(work)

    def wait(self, indices: np.ndarray | None = None) -> None:
        """Return once nothing is pending, or nothing of these rows; raises what the write raised."""
        if self._pending is None or (indices is not None and not np.isin(indices, self._rows).any()):
            return
        pending, self._pending = self._pending, None
        pending.result()
