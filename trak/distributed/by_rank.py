"""Batches of a store without row locks: every process begins with the share of its rank."""

from collections.abc import Callable, Sequence

import numpy as np

from trak._utils.ranks import iter_pending
from trak.distributed.scheduler import BatchScheduler, IndexedBatches, PendingBatch
from trak.inputs.numbered_batches import NumberedBatches
from trak.store import Table


class RankScheduler(BatchScheduler):
    """Computes every submitted batch at once. Ranks begin with their share of a loader and then help the others."""

    def submit(self, work: PendingBatch) -> None:
        if not work.is_done():
            work.step.write(work, work.step.compute(work), lambda: None)

    def drain(self) -> None:
        self._flush()

    def _share(self, known: NumberedBatches, table: Table, skipped: Callable[[int], object]) -> IndexedBatches:
        """This rank's share, and then what other ranks leave; the first batch is always among them."""
        indices, loaded = known.indices, 0

        def pending(numbers: Sequence[int]) -> list[int]:
            self.drain()
            if not numbers:
                return []
            done = table.is_done(np.concatenate([indices[number] for number in numbers]))
            ends = np.cumsum([len(indices[number]) for number in numbers])[:-1]
            return [number for number, rows in zip(numbers, np.split(done, ends), strict=True) if not rows.all()]

        everything = range(len(indices))
        if not pending(everything[:1]):
            yield next(iter(known.load(iter([0])))), indices[0]
            loaded += len(indices[0])
        for share in iter_pending(everything, pending):
            for number, batch in zip(share, known.load(iter(share)), strict=True):
                yield batch, indices[number]
                loaded += len(indices[number])
        skipped(len(table) - loaded)
