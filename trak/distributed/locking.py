"""Batches that several processes go through, each computed by one of them."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from trak._utils import ranks
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.store import POLL, RowLocks, Table

_LATE = " again"
"""Ends the name of the claim under which that is done, by one process again."""

T = TypeVar("T")
logger = logging.getLogger("trak")


@dataclass(frozen=True)
class PendingBatch:
    """A batch of examples whose rows are not all done."""

    table: Table
    batch: Batch
    indices: np.ndarray
    hashes: np.ndarray
    what: str
    """The set that the examples are of."""
    replaced: np.ndarray = field(repr=False)
    """Which rows are done for other data, and to be replaced: bool (B,)."""

    def is_done(self) -> bool:
        """Whether nothing is left to do, whoever did it.

        Raises:
            ValueError: if another process stored other data meanwhile.
        """
        self.table.refresh()
        done = self.table.is_done(self.indices)
        same = done & (self.table.hashes(self.indices) == self.hashes) if done.any() else done
        other = done & ~same & ~self.replaced
        if other.any():
            raise ValueError(
                f"{self.what} example {int(self.indices[np.argmax(other)])} was just featurized by another process "
                "from other data: two runs that differ use one save_dir, or a loader shuffles; give each run a "
                "save_dir and each set of targets an exp_name of its own, and iterate in the same order everywhere"
            )
        return bool(same.all())


class LockingScheduler:
    """Computes batches that no other process is at, and remembers the others until those are done.

    So no more batches are kept than other processes have in work. When one of those ends early, its rows are free for
    whoever comes by; when it only hangs, they are computed here after `trak._utils.ranks.PATIENCE` seconds of waiting, and it
    is no harm if it goes on.
    """

    def __init__(self, locks: RowLocks, compute: Callable[[PendingBatch, Callable[[], None]], None]) -> None:
        """
        Args:
            claims: of the store.
            compute: does the work, and calls what it is given once the rows are written.
        """
        self._claims, self._compute = locks, compute
        self._left: list[PendingBatch] = []

    def agreed(self, value: T, *given: np.ndarray) -> T:
        """The value, since every process goes by what it sees itself."""
        return value

    def add(self, work: PendingBatch) -> None:
        """Do the work, or leave it to the process that is at it."""
        self._advance()
        if not self._attempt(work, self._compute):
            self._left.append(work)

    def settle(self) -> None:
        """Return once everything that was added is done."""
        since, count = time.monotonic(), len(self._left)
        while self._left:
            late = time.monotonic() - since > ranks.PATIENCE
            self._advance(_LATE if late else "")
            if len(self._left) == count:
                time.sleep(POLL)
                continue
            if late:
                logger.warning("another process is slow or hangs: a batch that it has claimed was computed here")
            since, count = time.monotonic(), len(self._left)

    def _advance(self, late: str = "") -> None:
        waiting, self._left = self._left, []
        for position, work in enumerate(waiting):
            try:
                if not self._attempt(work, self._compute_kept, late):
                    self._left.append(work)
            except BaseException:
                self._left += waiting[position + 1 :]
                raise

    def _attempt(
        self, work: PendingBatch, compute: Callable[[PendingBatch, Callable[[], None]], None], late: str = ""
    ) -> bool:
        """Whether the work is done, or was done now."""
        name = work.table.group.path + late

        def release() -> None:
            self._claims.release(name, work.indices)

        if not self._claims.acquire(name, work.indices):
            return work.is_done()
        try:
            if work.is_done():
                release()
            else:
                compute(work, release)
        except BaseException:
            release()
            raise
        return True

    def _compute_kept(self, work: PendingBatch, then: Callable[[], None]) -> None:
        if (batches.digests(work.batch) != work.hashes).any():
            raise ValueError(
                f"the batch of {work.what} examples {work.indices.tolist()[:3]}... was overwritten after it was given, "
                "and is needed again since the process that had claimed it has ended; run the same script again"
            )
        self._compute(work, then)
