"""Row locks: which process computes which rows of a local store."""

import hashlib
import os
import threading
from pathlib import Path
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
        acquired: list[tuple[int, int]] = []
        for start, stop in self._runs(rows):
            if not platform.lock_range(*self._range(what, start, stop)):
                for run in acquired:
                    platform.unlock_range(*self._range(what, *run))
                return False
            acquired.append((start, stop))
        return True

    def release(self, what: str, rows: np.ndarray) -> None:
        """Unlock rows."""
        for start, stop in self._runs(rows):
            platform.unlock_range(*self._range(what, start, stop))

    def _runs(self, rows: np.ndarray) -> list[tuple[int, int]]:
        if self._descriptor is None:
            return []
        pieces = np.split(np.sort(rows), np.flatnonzero(np.diff(np.sort(rows)) > 1) + 1)
        return [(int(piece[0]), int(piece[-1]) + 1) for piece in pieces]

    def _range(self, what: str, start: int, stop: int) -> tuple[int, int, int]:
        assert self._descriptor is not None  # there are no runs without
        # A range of offsets for each name, the highest bit left out as offsets are signed.
        name = int.from_bytes(hashlib.blake2b(what.encode(), digest_size=4).digest(), "little") >> 1
        return self._descriptor, (name << _ROW_BITS) + start, stop - start


def row_locks(location: Location) -> RowLocks:
    """The row locks of this process in a store.

    Raises:
        PermissionError: if the store is not writable.
    """
    root = local_root(location)
    return RowLocks(None) if root is None or not platform.has_range_locks() else _open(root / f"{LOCK}{ROWS}", root)


def _open(path: Path, root: Path) -> RowLocks:
    with _opening:
        if path.exists():
            status = path.stat()
            found = _opened.get((status.st_dev, status.st_ino))
            if found is not None:
                return found
        try:
            descriptor = platform.open_lock(path)
        except OSError as error:
            raise explained(error, root) from error
        status = os.fstat(descriptor)
        made = _opened[status.st_dev, status.st_ino] = RowLocks(descriptor)
        return made
