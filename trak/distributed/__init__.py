"""Several processes on one store; see docs/distributed.md.

Who computes what is settled by `trak.store.claims` and `trak.sharing`, below `TRAKer`, so that its users get it
unasked. Here is what stands above.
"""

from trak.distributed.cluster import Job, attribute_on
from trak.distributed.dealing import dealt
from trak.distributed.packing import Packed
from trak.distributed.pool import Pool, Ray

__all__ = ["Job", "Packed", "Pool", "Ray", "attribute_on", "dealt"]
