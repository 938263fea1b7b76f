"""Batches that the ranks of a sharded model compute together, a batch on each rank."""

import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from trak._utils.ranks import all_gather_object, rank, world_size
from trak.distributed.scheduler import BatchScheduler, PendingBatch

T = TypeVar("T")


class LockstepScheduler(BatchScheduler):
    """Schedules a model that no rank can run without the others.

    Every rank is given every batch. Batches that are not done are kept until there is one for each rank; a rank for
    which none is left at the end runs the model on another's batch and drops the result. The first rank's view decides
    what is done, and where ranks meet they compare what brought them there.
    """

    _may_skip = False

    def __init__(self, flush: Callable[[], object]) -> None:
        super().__init__(flush)
        self._kept: list[PendingBatch] = []
        self._unsettled = False

    def broadcast_decision(self, decision: T, *inputs: np.ndarray) -> T:
        return self._meet("a batch" if inputs else "a check", decision, *inputs)

    def submit(self, work: PendingBatch) -> None:
        self._kept.append(work)
        if len(self._kept) == world_size():
            self._compute_kept()

    def drain(self) -> None:
        if not (self._kept or self._unsettled):
            return
        self._meet("the end of the batches", None)
        if self._kept:
            self._compute_kept()
        self._flush()
        self._meet("written rows", None)
        self._unsettled = False

    def _compute_kept(self) -> None:
        works, self._kept = self._kept, []
        self._unsettled = True
        own = works[rank() % len(works)]
        own.check_unchanged("ranks with a sharded model keep a batch for each of them; give each batch its own memory")
        own.step.select_engine(works[0].batch)
        values = own.step.compute(own)
        if rank() < len(works):
            own.step.write(own, values, lambda: None)

    def _meet(self, place: str, value: T, *inputs: np.ndarray) -> T:
        digest = hashlib.blake2b(b"".join(part.tobytes() for part in inputs), digest_size=8).hexdigest()
        found = all_gather_object((place, digest, value))
        first_place, first_digest, first_value = found[0]
        for number, (other_place, other_digest, _) in enumerate(found):
            if other_place != first_place:
                raise ValueError(
                    f"rank {number} is at {other_place} where rank 0 is at {first_place}; make the same calls with the "
                    "same batches on every rank of a sharded model"
                )
            if other_digest != first_digest:
                raise ValueError(
                    f"rank {number} was given other examples than rank 0: with a sharded model every rank gets all "
                    "batches, in the same order; pass the plain loader, without DistributedSampler, on every rank"
                )
        return first_value
