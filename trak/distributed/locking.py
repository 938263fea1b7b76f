"""Batches of a store with row locks: a process computes those that no other process has locked."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from trak._utils import ranks
from trak.distributed.scheduler import BatchScheduler, IndexedBatches, PendingBatch
from trak.inputs.numbered_batches import NumberedBatches
from trak.store import POLL, RowLocks, Table

_SECOND_LOCK = " again"
"""Ends the name of the lock under which one process computes what a hanging process has locked."""

logger = logging.getLogger("trak")


class LockingScheduler(BatchScheduler):
    """Computes batches whose rows it can lock, and remembers the others until they are done.

    No more batches are kept than other processes have in work. If such a process ends early, the kernel frees its rows
    for whoever comes next. If it only hangs, the rows are computed here after 30 seconds of
    waiting; rows computed twice are the same bits.
    """

    def __init__(self, flush: Callable[[], object], locks: RowLocks) -> None:
        super().__init__(flush)
        self._locks = locks
        self._waiting: list[PendingBatch] = []

    def submit(self, work: PendingBatch) -> None:
        self._retry_waiting()
        if not self._attempt(work):
            self._waiting.append(work)

    def drain(self) -> None:
        since, count = time.monotonic(), len(self._waiting)
        while self._waiting:
            late = time.monotonic() - since > ranks.PATIENCE
            self._retry_waiting(_SECOND_LOCK if late else "")
            if len(self._waiting) == count:
                time.sleep(POLL)
                continue
            if late:
                logger.warning("Another process is slow or hangs: a batch that it had locked was computed here.")
            since, count = time.monotonic(), len(self._waiting)
        self._flush()

    def _retry_waiting(self, suffix: str = "") -> None:
        waiting, self._waiting = self._waiting, []
        for position, work in enumerate(waiting):
            try:
                if not self._attempt(work, suffix, kept=True):
                    self._waiting.append(work)
            except BaseException:
                self._waiting += waiting[position + 1 :]
                raise

    def _attempt(self, work: PendingBatch, suffix: str = "", kept: bool = False) -> bool:
        """Whether the batch is done, or could be computed now."""
        name = work.table.group.path + suffix
        if not self._locks.acquire(name, work.indices):
            return work.is_done()
        release = partial(self._locks.release, name, work.indices)
        try:
            if work.is_done():
                release()
            else:
                if kept:
                    work.check_unchanged(
                        "is needed again since the process that had locked it has ended; run the same script again"
                    )
                work.step.write(work, work.step.compute(work), release)
        except BaseException:
            release()
            raise
        return True

    def _share(self, known: NumberedBatches, table: Table, skipped: Callable[[int], object]) -> IndexedBatches:
        """Only batches that are not done and that no other process has locked: they are locked before they are loaded.
        The first batch is always among them, for what is checked by it. Batches that others had locked and that are
        still not done come last."""
        loading = deque[np.ndarray]()
        for batch in known.load(self._unlocked(known.indices, table, loading, skipped)):
            yield batch, loading.popleft()

    def _unlocked(
        self, indices: list[np.ndarray], table: Table, loading: deque[np.ndarray], skipped: Callable[[int], object]
    ) -> Iterator[int]:
        name, left = table.group.path, deque[int]()

        def done(number: int) -> bool:
            table.refresh()
            return bool(table.is_done(indices[number]).all())

        for number, rows in enumerate(indices):
            while left and done(left[0]):
                skipped(len(indices[left.popleft()]))
            if number > 0:
                if not self._locks.acquire(name, rows):
                    left.append(number)
                    continue
                if done(number):
                    self._locks.release(name, rows)
                    skipped(len(rows))
                    continue
            loading.append(rows)
            yield number
        for number in left:
            if done(number):
                skipped(len(indices[number]))
            else:
                loading.append(indices[number])
                yield number
