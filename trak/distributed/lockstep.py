"""Batches that the ranks of a sharded model go through together, each rank computing another."""

import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from trak._utils.ranks import all_gather_object, rank, world_size
from trak.distributed.locking import PendingBatch
from trak.inputs import batches
from trak.inputs.batches import Batch

T = TypeVar("T")


class LockstepScheduler:
    """As `trak.distributed.locking.LockingScheduler`, where no rank can go through the model without the others.

    Every rank is given every batch. Those that are not done are kept until there is one for each rank; a rank for which
    none is left at the end goes through the model with another's and drops what it computed. What is done is what the
    first rank sees, so that all decide alike, and where ranks meet they compare what brought them there.
    """

    def __init__(
        self,
        begin: Callable[[Batch], object],
        compute: Callable[[PendingBatch, Callable[[], None]], None],
        accompany: Callable[[PendingBatch], object],
        flush: Callable[[], None],
    ) -> None:
        """
        Args:
            begin: gets ready to compute, by a batch that every rank has.
            compute: does the work, and calls what it is given once the rows are written.
            accompany: the same without any effect.
            flush: returns once what was computed is written.
        """
        self._begin, self._compute, self._accompany, self._flush = begin, compute, accompany, flush
        self._kept: list[PendingBatch] = []
        self._unsettled = False

    def agreed(self, value: T, *given: np.ndarray) -> T:
        """The first rank's value.

        Args:
            value: what this rank would say.
            given: what is the same on every rank, if they run the same script.

        Raises:
            ValueError: on every rank, if it is not.
        """
        return self._meet("a batch" if given else "a check", value, *given)

    def add(self, work: PendingBatch) -> None:
        """Do the work together with what is added next, or have another rank do it."""
        self._kept.append(work)
        if len(self._kept) == world_size():
            self._step()

    def settle(self) -> None:
        """Return once everything that was added is done; on every rank or on none."""
        if not (self._kept or self._unsettled):
            return
        self._meet("the end of the batches", None)
        if self._kept:
            self._step()
        self._flush()
        self._meet("written rows", None)
        self._unsettled = False

    def _step(self) -> None:
        works, self._kept = self._kept, []
        self._unsettled = True
        own = works[rank() % len(works)]
        if (batches.digests(own.batch) != own.hashes).any():
            raise ValueError(
                f"the batch of {own.what} examples {own.indices.tolist()[:3]}... was overwritten after it was given, "
                "and ranks with a sharded model keep a batch for each of them; give each batch memory of its own"
            )
        self._begin(works[0].batch)
        if rank() < len(works):
            self._compute(own, lambda: None)
        else:
            self._accompany(own)

    def _meet(self, where: str, value: T, *given: np.ndarray) -> T:
        digest = hashlib.blake2b(b"".join(part.tobytes() for part in given), digest_size=8).hexdigest()
        found = all_gather_object((where, digest, value))
        first, others, _ = found[0]
        for number, (place, seen, _) in enumerate(found):
            if place != first:
                raise ValueError(
                    f"rank {number} is at {place} where rank 0 is at {first}; make the same calls with the same "
                    "batches on every rank of a sharded model"
                )
            if seen != others:
                raise ValueError(
                    f"rank {number} was given other examples than rank 0: with a sharded model every rank gets all "
                    "batches, in the same order; pass the plain loader, without DistributedSampler, on every rank"
                )
        return found[0][2]
