"""Tasks on a Ray cluster."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trak._utils.messages import first_line
from trak._utils.optional import import_optional_dependency

_AT_ONCE = 1000
"""Tasks that Ray is told of at a time if their number isn't limited: enough for a cluster to grow by."""


@dataclass(frozen=True)
class Ray:
    """The engine for clusters: work is cut into tasks, which Ray spreads over the machines that there are.

    For `trak.attribute(..., engine=Ray(...))` and `retrain_on(..., backend=Ray(...))`. `ray.init()` is called unless it
    was before. A task whose worker dies is run by another; machines may come and go.
    """

    num_workers: int | None = None
    """Tasks at a time; by default as many as the cluster has room for, and more as it grows."""
    num_gpus_per_worker: float = 0
    """GPUs for each task; with 0 it computes on the CPU."""
    num_cpus_per_worker: float = 1
    """Cores for each task."""
    engine: str = "auto"
    """How gradients are computed there, see `trak.gradients`."""
    max_retries: int = 20
    """How often a task is run again whose worker died, before the run stops."""

    def __post_init__(self) -> None:
        if self.num_workers is not None and (not isinstance(self.num_workers, int) or self.num_workers < 1):
            raise ValueError(
                f"num_workers must be a positive integer or None, got {self.num_workers!r}; leave it out for as many "
                "as the cluster runs"
            )
        for name in ("num_gpus_per_worker", "num_cpus_per_worker", "max_retries"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(
                    f"{name} must be a number of 0 or more, got {value!r}; give what Ray is to reserve for a worker"
                )


class Pool:
    """Tasks that are under way on a cluster, and those that wait. Iterating yields (key, what it returned) as they end,
    and ends with the last; more may be added meanwhile. What a task raised is raised; a RuntimeError tells that the
    cluster lost one too often."""

    def __init__(self, engine: Ray) -> None:
        self._ray = import_optional_dependency("ray", "a Ray engine needs Ray", "ray")
        if not self._ray.is_initialized():
            self._ray.init()
        self._limit = engine.num_workers or _AT_ONCE
        self._options = {
            "num_cpus": engine.num_cpus_per_worker,
            "num_gpus": engine.num_gpus_per_worker,
            "max_retries": engine.max_retries,
            "scheduling_strategy": "SPREAD",
        }
        self._waiting: deque[tuple[Any, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._under_way: dict[Any, Any] = {}

    def put(self, value: Any) -> Any:
        """A reference to a value that several tasks take, sent to each machine once."""
        return self._ray.put(value)

    def add(self, key: Any, function: Callable[..., Any], *arguments: Any, first: bool = False) -> None:
        """A task, after or before all that wait."""
        (self._waiting.appendleft if first else self._waiting.append)((key, function, arguments))

    def slots(self) -> int:
        """How many tasks run at a time as the cluster is now, at least 1."""
        found = self._ray.cluster_resources()
        needs = (("CPU", self._options["num_cpus"]), ("GPU", self._options["num_gpus"]))
        return max(1, min(self._limit, *(int(found.get(kind, 0) / need) for kind, need in needs if need)))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        from ray.exceptions import RayError, RayTaskError

        try:
            while self._waiting or self._under_way:
                while self._waiting and len(self._under_way) < self._limit:
                    key, function, arguments = self._waiting.popleft()
                    reference = self._ray.remote(function).options(**self._options).remote(*arguments)
                    self._under_way[reference] = key
                (ended, *_), _ = self._ray.wait(list(self._under_way), num_returns=1)
                key = self._under_way.pop(ended)
                yield key, self._ray.get(ended)
        except RayTaskError as error:
            if error.cause is None:
                raise
            error.cause.add_note(f"On the cluster:\n{error}")
            raise error.cause from None
        except RayError as error:
            raise RuntimeError(
                f"the Ray cluster lost a task ({type(error).__name__}: {first_line(error, None)}); if "
                "workers ran out of memory, give each more by num_cpus_per_worker. What was done is stored: run the "
                "same script again and it goes on"
            ) from error
        finally:
            for reference in self._under_way:
                with suppress(Exception):  # the cluster may be gone
                    self._ray.cancel(reference, force=True)
            self._under_way.clear()
            self._waiting.clear()
