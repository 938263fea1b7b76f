"""Measure many runs, in this process, in processes beside it, or on a Ray cluster."""

import hashlib
import os
import pickle
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from trak.evaluation.inputs import count
from trak.evaluation.retraining.measure import Failed, Measured, Recipe
from trak.evaluation.retraining.runs import Run
from trak.naming import did_you_mean

Results: TypeAlias = Generator[tuple[int, Measured | Failed]]


def measure_all(recipe: Recipe, runs: Iterable[Run], jobs: int | None, backend: str) -> Results:
    """(position of the run, what came of it), in the order in which runs end.

    `runs` is read as processes become free: none is begun once it ends, those under way are waited for.

    Args:
        recipe: what all runs have in common.
        runs: what to train.
        jobs: number of processes, 1 for this one; by default that of the cores, of the cluster's for "ray".
        backend: "loky" or "ray".

    Raises:
        TypeError: if the recipe can't be sent to another process.
        ImportError: if joblib or Ray is not installed.
    """
    return _BACKENDS[backend](recipe, runs, jobs)


def check_workers(jobs: int | None, backend: str) -> None:
    """Raise a ValueError for an unknown backend or a number of processes that can't be."""
    if jobs is not None:
        count(jobs, "jobs")
    if backend not in _BACKENDS:
        raise ValueError(f"unknown backend {backend!r}: {did_you_mean(str(backend), _BACKENDS)}")


def _loky(recipe: Recipe, runs: Iterable[Run], jobs: int | None) -> Results:
    jobs = jobs or _joblib().cpu_count()
    if jobs == 1:
        yield from ((i, recipe.measure(run)) for i, run in enumerate(runs))
        return
    joblib = _joblib()
    sent, work = _Packed.of(recipe), joblib.delayed(_measure)
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


def _ray(recipe: Recipe, runs: Iterable[Run], jobs: int | None) -> Results:
    # Ray's backend for joblib hands nothing back before the last run has ended.
    try:
        import ray
    except ImportError as error:
        raise ImportError("backend='ray' needs Ray: pip install 'trak-attribution[ray]'") from error
    if not ray.is_initialized():
        ray.init()
    jobs = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
    sent, work, following = ray.put(_Packed.of(recipe)), ray.remote(_measure), enumerate(runs)
    under_way: list[Any] = []
    try:
        while True:
            for i, run in following:
                under_way.append(work.remote(sent, i, run))
                if len(under_way) >= jobs:
                    break
            if not under_way:
                return
            (ended, *_), under_way = ray.wait(under_way, num_returns=1)
            yield ray.get(ended)
    finally:
        for reference in under_way:
            ray.cancel(reference, force=True)


_BACKENDS: dict[str, Callable[[Recipe, Iterable[Run], int | None], Results]] = {"loky": _loky, "ray": _ray}


class _Packed(NamedTuple):
    """A recipe, pickled once: joblib and Ray share a large array among the processes of a machine."""

    key: bytes
    data: np.ndarray

    @classmethod
    def of(cls, recipe: Recipe) -> "_Packed":
        import cloudpickle

        try:
            data = cloudpickle.dumps(recipe)
        except Exception as error:  # pickling runs the user's code too
            raise TypeError(
                f"train, task or targets can't be sent to other processes ({type(error).__name__}: {error}); make "
                "what can't be sent inside of train, or use jobs=1"
            ) from error
        return cls(hashlib.blake2b(data, digest_size=16).digest(), np.frombuffer(data, np.uint8))


_unpacked: dict[bytes, Recipe] = {}  # the last one, since all runs have the same
_PARENT_SECONDS = 0.5


def _end_with(parent: int) -> None:
    """End this process when its parent does: loky's would train to the end and then wait for five minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measure(packed: _Packed, position: int, run: Run) -> tuple[int, Measured | Failed]:
    if packed.key not in _unpacked:
        _unpacked.clear()
        _unpacked[packed.key] = pickle.loads(packed.data.data)  # noqa: S301 pickled by the process that asks
    return position, _unpacked[packed.key].measure(run)
