"""Processes that share the work on one store: schedulers of batches, executors of numbered jobs, and Ray."""

from trak.distributed.by_rank import RankScheduler
from trak.distributed.executors import RayExecutor, SharingExecutor, SubsetExecutor
from trak.distributed.locking import LockingScheduler
from trak.distributed.lockstep import LockstepScheduler
from trak.distributed.packing import Packed
from trak.distributed.ray_pool import Pool, Ray
from trak.distributed.scheduler import BatchScheduler, BatchStep, ExampleSet, PendingBatch

__all__ = [
    "BatchScheduler",
    "BatchStep",
    "ExampleSet",
    "LockingScheduler",
    "LockstepScheduler",
    "Packed",
    "PendingBatch",
    "Pool",
    "RankScheduler",
    "Ray",
    "RayExecutor",
    "SharingExecutor",
    "SubsetExecutor",
]
