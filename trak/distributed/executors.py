"""Executors: which process does which of some numbered jobs, such as the tiles of a score matrix."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from tqdm.auto import tqdm

from trak._utils.ranks import iter_pending
from trak.distributed.packing import Packed
from trak.distributed.ray_pool import Pool, Ray
from trak.store import POLL, Executor, RowLocks

_TASKS_EACH = 4
"""Into how many tasks for each worker jobs are cut, so that all workers end at nearly the same time."""
_REMEDY = "keep objects that can't be pickled (open files, locks) out of it"


class SharingExecutor:
    """Does the jobs that no other process is doing: by row locks, or where the store has none, by rank."""

    def __init__(self, locks: RowLocks) -> None:
        self._locks = locks

    def run(
        self, name: str, numbers: Sequence[int], is_done: Callable[[int], bool], compute: Callable[[int], object]
    ) -> None:
        """Return once all jobs are done; see `trak.store.Executor`."""
        if not self._locks.enabled:
            for share in iter_pending(numbers, lambda some: [number for number in some if not is_done(number)]):
                for number in share:
                    if not is_done(number):
                        compute(number)
            return
        while left := [number for number in numbers if not is_done(number)]:
            attempts = [self._attempt(name, number, is_done, compute) for number in left]
            if not any(attempts):
                time.sleep(POLL)

    def _attempt(
        self, name: str, number: int, is_done: Callable[[int], bool], compute: Callable[[int], object]
    ) -> bool:
        """Whether the lock was free, and thus the job is done."""
        row = np.array([number])
        if not self._locks.acquire(name, row):
            return False
        try:
            if not is_done(number):
                compute(number)
        finally:
            self._locks.release(name, row)
        return True


class SubsetExecutor:
    """Does some of the jobs, by another executor."""

    def __init__(self, numbers: Sequence[int], executor: Executor) -> None:
        self._numbers, self._executor = numbers, executor

    def run(
        self, name: str, numbers: Sequence[int], is_done: Callable[[int], bool], compute: Callable[[int], object]
    ) -> None:
        """Return once those of its jobs that are among `numbers` are done; see `trak.store.Executor`."""
        wanted = set(numbers)
        self._executor.run(name, [number for number in self._numbers if number in wanted], is_done, compute)


class RayExecutor:
    """Has the tasks of a Ray cluster do the jobs, and another executor the jobs that are left then."""

    def __init__(self, engine: Ray, work: Callable[[Sequence[int]], object], executor: Executor) -> None:
        """
        Args:
            engine: the cluster.
            work: does the jobs of some numbers in a worker process; picklable.
            executor: does the jobs that are left, in this process.
        """
        self._engine, self._work, self._executor = engine, work, executor

    def run(
        self, name: str, numbers: Sequence[int], is_done: Callable[[int], bool], compute: Callable[[int], object]
    ) -> None:
        """Return once all jobs are done; see `trak.store.Executor`."""
        pool = Pool(self._engine)
        sent = pool.put(Packed.of(self._work, "the attribution", _REMEDY))
        for part in np.array_split(np.asarray(numbers), min(len(numbers), _TASKS_EACH * pool.slots())):
            pool.add(len(part), _work, sent, part.tolist())
        with tqdm(total=len(numbers), desc="scoring", unit="piece", delay=0.5) as bar:
            for count, _ in pool:
                bar.update(count)
        self._executor.run(name, numbers, is_done, compute)


def _work(packed: Packed, numbers: Sequence[int]) -> None:
    packed.unpack()(numbers)
