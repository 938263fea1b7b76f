"""Measure many runs, in this process, in processes beside it, or on a Ray cluster."""

import os
import threading
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any, TypeAlias

from trak._utils.messages import suggest
from trak._utils.platform import wait_for_end
from trak.distributed import Packed, Pool, Ray
from trak.evaluation.retraining.runs import TrainingRun
from trak.evaluation.retraining.training_spec import RunFailure, RunResult, TrainingSpec
from trak.evaluation.validation import count

BACKENDS = ("loky", "ray")
Results: TypeAlias = Generator[tuple[int, RunResult | RunFailure]]


def measure_all(recipe: TrainingSpec, runs: Iterable[TrainingRun], jobs: int | None, backend: str | Ray) -> Results:
    """(position of the run, what came of it), in the order in which runs end.

    `runs` is read as processes become free: none is begun once it ends, those under way are waited for.

    Args:
        recipe: what all runs have in common.
        runs: what to train.
        jobs: number of processes, 1 for this one; by default that of the cores, of the cluster's for "ray".
        backend: "loky", "ray" or a Ray engine.

    Raises:
        TypeError: if the recipe can't be sent to another process.
        ImportError: if joblib or Ray is not installed.
    """
    if backend == "loky":
        return _loky(recipe, runs, jobs)
    return _ray(recipe, runs, jobs, backend if isinstance(backend, Ray) else Ray())


def check_workers(jobs: int | None, backend: str | Ray) -> None:
    """Raise a ValueError for an unknown backend or a number of processes that can't be."""
    if jobs is not None:
        count(jobs, "jobs")
    if not isinstance(backend, Ray) and backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}: {suggest(str(backend), BACKENDS)}")


def _loky(recipe: TrainingSpec, runs: Iterable[TrainingRun], jobs: int | None) -> Results:
    jobs = jobs or _joblib().cpu_count()
    if jobs == 1:
        yield from ((i, recipe.measure(run)) for i, run in enumerate(runs))
        return
    joblib = _joblib()
    sent, work = _packed(recipe), joblib.delayed(_measure)
    with joblib.parallel_config("loky", inner_max_num_threads=1, initializer=_end_with, initargs=(os.getpid(),)):
        parallel = joblib.Parallel(jobs, return_as="generator_unordered", pre_dispatch=jobs, batch_size=1)
        with closing(parallel(work(sent, i, run) for i, run in enumerate(runs))) as results:
            yield from results


def _joblib() -> Any:
    try:
        import joblib
    except ImportError as error:
        raise ImportError(
            "retraining in several processes needs joblib: pip install 'trak-attribution[evaluation]'; jobs=1 doesn't"
        ) from error
    return joblib


def _ray(recipe: TrainingSpec, runs: Iterable[TrainingRun], jobs: int | None, engine: Ray) -> Results:
    # Ray's backend for joblib hands nothing back before the last run has ended.
    pool = Pool(engine)
    sent, following = pool.put(_packed(recipe)), enumerate(runs)

    def add_one() -> None:
        for i, run in following:
            pool.add(i, _measure, sent, i, run)
            return

    for _ in range(jobs or engine.num_workers or pool.slots()):
        add_one()
    for _, found in pool:
        yield found
        add_one()


def _packed(recipe: TrainingSpec) -> Packed:
    return Packed.of(recipe, "train, task or targets", "make what can't be sent inside of train, or use jobs=1")


def _end_with(parent: int) -> None:
    """End this process when its parent does: loky's would train to the end and then wait for five minutes."""

    def watch() -> None:
        wait_for_end(parent)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measure(packed: Packed, position: int, run: TrainingRun) -> tuple[int, RunResult | RunFailure]:
    return position, packed.unpack().measure(run)
