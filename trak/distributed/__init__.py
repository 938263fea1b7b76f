"""Several processes on one store; see docs/distributed.md.

Who computes what is settled by `trak.store.claims` and `trak.sharing`, below `TRAKer`, so that its users get it
unasked. Here is what stands above.
"""

from trak.distributed.dealing import dealt

__all__ = ["dealt"]
