"""Measure many runs, in this process, in processes beside it, or on a Ray cluster."""

import os
import threading
from collections.abc import Generator, Iterable
from contextlib import closing
from itertools import islice
from typing import Any, TypeAlias

from trak._utils.optional import import_optional_dependency
from trak._utils.platform import wait_for_end
from trak.distributed import Packed, Pool, Ray
from trak.evaluation.retraining.runs import TrainingRun
from trak.evaluation.retraining.training_spec import RunFailure, RunResult, TrainingSpec

Results: TypeAlias = Generator[tuple[int, RunResult | RunFailure]]


def measure_all(spec: TrainingSpec, runs: Iterable[TrainingRun], jobs: int | None, backend: str | Ray) -> Results:
    """(position of the run, what came of it), in the order in which runs end.

    `runs` is read as processes become free: none is begun once it ends, those under way are waited for."""
    if backend == "loky":
        return _loky(spec, runs, jobs)
    return _ray(spec, runs, jobs, backend if isinstance(backend, Ray) else Ray())


def _loky(spec: TrainingSpec, runs: Iterable[TrainingRun], jobs: int | None) -> Results:
    need = "retraining in several processes, unlike jobs=1, needs joblib"
    joblib: Any = None if jobs == 1 else import_optional_dependency("joblib", need, "evaluation")
    jobs = jobs or joblib.cpu_count()
    if jobs == 1:
        yield from ((i, spec.measure(run)) for i, run in enumerate(runs))
        return
    sent, work = _packed(spec), joblib.delayed(_measure)
    with joblib.parallel_config("loky", inner_max_num_threads=1, initializer=_end_with, initargs=(os.getpid(),)):
        parallel = joblib.Parallel(jobs, return_as="generator_unordered", pre_dispatch=jobs, batch_size=1)
        with closing(parallel(work(sent, i, run) for i, run in enumerate(runs))) as results:
            yield from results


def _ray(spec: TrainingSpec, runs: Iterable[TrainingRun], jobs: int | None, engine: Ray) -> Results:
    # Ray's backend for joblib hands nothing back before the last run has ended.
    pool = Pool(engine)
    sent, following = pool.put(_packed(spec)), enumerate(runs)

    def add(count: int) -> None:
        for i, run in islice(following, count):
            pool.add(i, _measure, sent, i, run)

    add(jobs or engine.num_workers or pool.slots())
    for _, found in pool:
        yield found
        add(1)


def _packed(spec: TrainingSpec) -> Packed:
    return Packed.of(spec, "train, task or targets", "make what can't be sent inside of train, or use jobs=1")


def _end_with(parent: int) -> None:
    """End this process when its parent does: loky's would train to the end and then wait for five minutes."""

    def watch() -> None:
        wait_for_end(parent)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measure(packed: Packed, position: int, run: TrainingRun) -> tuple[int, RunResult | RunFailure]:
    return position, packed.unpack().measure(run)
