"""Several processes on one store; see docs/distributed.md.

Who computes what is settled by `trak.store.locks` and `trak.distributed.locking`, below `TRAKer`, so that its users get it
unasked. Here is what stands above.
"""

from trak.distributed.executors import RayExecutor, SharingExecutor, SubsetExecutor
from trak.distributed.packing import Packed
from trak.distributed.ray_pool import Pool, Ray
from trak.distributed.unclaimed import iter_unclaimed

__all__ = ["Packed", "Pool", "Ray", "RayExecutor", "SharingExecutor", "SubsetExecutor", "iter_unclaimed"]
