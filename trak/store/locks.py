"""Row locks: which process computes which rows of a local store."""

import hashlib
import os
import threading
from weakref import WeakValueDictionary

import numpy as np

from trak._utils import platform
from trak.store.location import LOCK, Location, explained, local_root

ROWS = "-rows"
POLL = 0.02
"""Seconds between looks at what other processes have done."""
_ROW_BITS = 32

_opened: WeakValueDictionary[tuple[int, int], "RowLocks"] = WeakValueDictionary()
_opening = threading.Lock()


class RowLocks:
    """Exclusive locks on rows or other numbered jobs, held until released or until the process ends.

    They are POSIX record locks on one file, a byte for each row. The kernel drops them with the process, however that
    ends, so the rows of a dead process are free at once. They only save work: rows computed twice are the same bits.
    Within one process they do not exclude each other, and forks do not inherit them. Stores that are not local have
    no locks, nor has any on Windows, and every lock is granted.
    """

    def __init__(self, descriptor: int | None) -> None:
        """Use `row_locks` instead: a process must not open the file twice, since closing it drops all its locks."""
        self._descriptor = descriptor

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    @property
    def enabled(self) -> bool:
        """Whether the store has locks; otherwise other processes may work on the same rows."""
        return self._descriptor is not None

    def acquire(self, what: str, rows: np.ndarray) -> bool:
        """Lock rows of something, all or none; False if another process holds one of them."""
        ranges = self._ranges(what, rows)
        for number, wanted in enumerate(ranges):
            if not platform.lock_range(*wanted):
                for acquired in ranges[:number]:
                    platform.unlock_range(*acquired)
                return False
        return True

    def release(self, what: str, rows: np.ndarray) -> None:
        """Unlock rows."""
        for locked in self._ranges(what, rows):
            platform.unlock_range(*locked)

    def _ranges(self, what: str, rows: np.ndarray) -> list[tuple[int, int, int]]:
        """Descriptor, offset and length for each run of successive rows."""
        if self._descriptor is None:
            return []
        # A range of offsets for each name, the highest bit left out as offsets are signed.
        name = int.from_bytes(hashlib.blake2b(what.encode(), digest_size=4).digest(), "little") >> 1
        pieces = np.split(np.sort(rows), np.flatnonzero(np.diff(np.sort(rows)) > 1) + 1)
        return [(self._descriptor, (name << _ROW_BITS) + int(p[0]), int(p[-1]) + 1 - int(p[0])) for p in pieces]


def row_locks(location: Location) -> RowLocks:
    """The row locks of this process in a store; a PermissionError if that is not writable."""
    root = local_root(location)
    if root is None or not platform.has_range_locks():
        return RowLocks(None)
    path = root / f"{LOCK}{ROWS}"
    with _opening:
        if path.exists():
            status = path.stat()
            if (found := _opened.get((status.st_dev, status.st_ino))) is not None:
                return found
        try:
            descriptor = platform.open_lock(path)
        except OSError as error:
            raise explained(error, root) from error
        status = os.fstat(descriptor)
        made = _opened[status.st_dev, status.st_ino] = RowLocks(descriptor)
        return made
