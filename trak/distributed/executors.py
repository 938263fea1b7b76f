"""Executors: which process does which of some numbered jobs, such as the tiles of a score matrix."""

import time
from collections.abc import Callable, Sequence
from itertools import filterfalse

import numpy as np
from tqdm.auto import tqdm

from trak._utils.ranks import iter_pending
from trak.distributed.packing import Packed
from trak.distributed.ray_pool import Pool, Ray
from trak.store import POLL, Executor, RowLocks

_TASKS_EACH = 4
"""Into how many tasks for each worker jobs are cut, so that all workers end at nearly the same time."""


class SharingExecutor:
    """Does the jobs that no other process is doing: by row locks, or where the store has none, by rank."""

    def __init__(self, locks: RowLocks) -> None:
        self._locks = locks

    def run(
        self, name: str, numbers: Sequence[int], is_done: Callable[[int], bool], compute: Callable[[int], object]
    ) -> None:
        """Return once all jobs are done; see `trak.store.Executor`."""
        if not self._locks.enabled:
            for share in iter_pending(numbers, lambda some: list(filterfalse(is_done, some))):
                for number in filterfalse(is_done, share):
                    compute(number)
            return
        while left := list(filterfalse(is_done, numbers)):
            others_compute_all = True
            for number in left:
                row = np.array([number])
                if not self._locks.acquire(name, row):
                    continue
                others_compute_all = False
                try:
                    if not is_done(number):
                        compute(number)
                finally:
                    self._locks.release(name, row)
            if others_compute_all:
                time.sleep(POLL)


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
        """Take a cluster, a picklable function that does some jobs in a worker process, and the other executor."""
        self._engine, self._work, self._executor = engine, work, executor

    def run(
        self, name: str, numbers: Sequence[int], is_done: Callable[[int], bool], compute: Callable[[int], object]
    ) -> None:
        """Return once all jobs are done; see `trak.store.Executor`."""
        pool = Pool(self._engine)
        remedy = "keep objects that can't be pickled (open files, locks) out of it"
        sent = pool.put(Packed.of(self._work, "the attribution", remedy))
        for part in np.array_split(np.asarray(numbers), min(len(numbers), _TASKS_EACH * pool.slots())):
            pool.add(len(part), _work, sent, part.tolist())
        with tqdm(total=len(numbers), desc="scoring", unit="piece", delay=0.5) as bar:
            for count, _ in pool:
                bar.update(count)
        self._executor.run(name, numbers, is_done, compute)


def _work(packed: Packed, numbers: Sequence[int]) -> None:
    packed.unpack()(numbers)
