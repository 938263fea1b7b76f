"""Who computes which batch, and when it counts as done: the interface of all schedulers."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from trak._utils.ranks import world_size
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.indices import Indices, iter_with_indices
from trak.inputs.numbered_batches import NumberedBatches, numbered_batches
from trak.store import Experiment, RowValues, Table

T = TypeVar("T")
IndexedBatches = Iterator[tuple[Batch, np.ndarray | None]]


class BatchStep(Protocol):
    """Computes the rows of a batch with one loaded checkpoint, see `trak.attribution.session.CheckpointSession`."""

    def prepare(
        self, examples: "ExampleSet", batch: Batch, inds: Indices | None, num_samples: int | None
    ) -> "PendingBatch | None":
        """Check a batch, and return what is to be computed of it; None if all of its rows are stored."""

    def select_engine(self, batch: Batch) -> None:
        """Choose the engine by a batch that every rank has."""

    def compute(self, work: "PendingBatch") -> RowValues:
        """Compute the rows of the batch, without storing them."""

    def write(self, work: "PendingBatch", values: RowValues, written: Callable[[], None]) -> None:
        """Store the rows, then call `written`."""


@dataclass
class ExampleSet:
    """The training examples or the targets of a checkpoint, and the next row that a batch without indices fills."""

    name: str
    """"training" or "target"."""
    table: Table
    size_name: str
    """The argument that gives the number of rows."""
    experiment: Experiment | None = None
    """What the targets belong to."""
    next_row: int = 0


@dataclass(frozen=True)
class PendingBatch:
    """A batch of examples whose rows are not all done."""

    step: BatchStep
    table: Table
    batch: Batch
    indices: np.ndarray
    hashes: np.ndarray
    set_name: str
    """"training" or "target"."""
    replaced: np.ndarray = field(repr=False)
    """Which rows are done for other data and are replaced: bool (B,)."""

    def is_done(self) -> bool:
        """Whether every row is stored, by this or another process.

        Raises:
            ValueError: if another process stored other data meanwhile.
        """
        self.table.refresh()
        done = self.table.is_done(self.indices)
        same = done & (self.table.hashes(self.indices) == self.hashes) if done.any() else done
        other = done & ~same & ~self.replaced
        if other.any():
            raise ValueError(
                f"{self.set_name} example {int(self.indices[np.argmax(other)])} was just featurized by another process "
                "from other data: two runs that differ use one save_dir, or a loader shuffles; give each run a "
                "save_dir and each set of targets an exp_name of its own, and iterate in the same order everywhere"
            )
        return bool(same.all())

    def check_unchanged(self, reason: str) -> None:
        """Raise a ValueError if the batch was overwritten in memory since it was submitted."""
        if (batches.digests(self.batch) != self.hashes).any():
            raise ValueError(
                f"the batch of {self.set_name} examples {self.indices.tolist()[:3]}... was overwritten after it was "
                f"given, and {reason}"
            )


class BatchScheduler:
    """Goes through batches that several processes may share. Callers do not know which kind they have."""

    _may_skip = True
    """Whether a process may skip batches that others compute."""

    def __init__(self, flush: Callable[[], object]) -> None:
        """Take `flush`, which returns once every row given to `BatchStep.write` is on disk."""
        self._flush = flush

    def broadcast_decision(self, decision: T, *inputs: np.ndarray) -> T:
        """Return the decision that every process takes: its own, unless the processes have to agree. Then `inputs` that
        differ, which are equal if all run the same script, raise a ValueError on every process."""
        return decision

    @abstractmethod
    def submit(self, work: PendingBatch) -> None:
        """Compute a batch now, or leave it to the process that works on it."""

    @abstractmethod
    def drain(self) -> None:
        """Return once every submitted batch is stored, by whichever process."""

    def process(
        self,
        step: BatchStep,
        examples: ExampleSet,
        batch: Batch,
        inds: Indices | None = None,
        num_samples: int | None = None,
    ) -> None:
        """Check a batch and submit what is missing of it; after the last row, drain. Without indices its examples are
        the ones that follow."""
        work = step.prepare(examples, batch, inds, num_samples)
        if work is not None:
            self.submit(work)
        if inds is None:
            examples.next_row += batches.size(batch)
            if examples.next_row == len(examples.table):
                self.drain()  # while the model has the weights for it

    def run(
        self,
        step: BatchStep,
        examples: ExampleSet,
        loader: Iterable[Batch],
        index_key: str | int | None,
        progress: Callable[[int], object],
        share: bool = True,
    ) -> None:
        """Return once the rows of all batches of a loader are stored, by whichever process.

        Args:
            step, examples, loader: the loader yields batches of the examples in the same order in every process.
            index_key: field of a batch that holds its examples' indices.
            progress: is told the number of examples of each batch that was computed or skipped.
            share: whether batches that other processes compute may be skipped unread; otherwise every process reads
                every batch, and notices data that has changed.
        """
        known = None
        if share and self._may_skip and world_size() > 1:
            known = numbered_batches(loader, len(examples.table), index_key)
        found = iter_with_indices(loader, index_key) if known is None else self._share(known, examples.table, progress)
        for batch, indices in found:
            self.process(step, examples, batch, indices)
            progress(batches.size(batch))
        self.drain()

    def _share(self, known: NumberedBatches, table: Table, skipped: Callable[[int], object]) -> IndexedBatches:
        """Those of several processes' batches that this one may have to compute, each with its examples' indices."""
        raise NotImplementedError
