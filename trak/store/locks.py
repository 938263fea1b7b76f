"""Who works on what, among the processes that use one local store."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from trak._utils import platform
from trak._utils.ranks import iter_pending
from trak.store.location import LOCK, Location, explained, local_root

ROWS = "-rows"
POLL = 0.02
"""Seconds between looks at what other processes have done."""
_ROW_BITS = 32

_opened: WeakValueDictionary[tuple[int, int], "RowLocks"] = WeakValueDictionary()
_opening = threading.Lock()


class RowLocks:
    """Rows, or other numbered pieces of work, that one process has for itself until it releases them or ends.

    They are POSIX record locks on one file, a byte for each row. The kernel drops them with the process, however that
    ends, so what a dead process had is free at once. They only save work: rows computed twice are the same bits.
    Within one process they do not exclude each other, and forks do not inherit them. A store that is not local has
    none, nor has any on Windows, and every claim succeeds.
    """

    def __init__(self, descriptor: int | None) -> None:
        """Use `row_locks` instead: a process must not open the file twice, since closing it drops all its locks."""
        self._descriptor = descriptor

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    @property
    def exclude(self) -> bool:
        """Whether there are any; else every process must expect others to be at the same."""
        return self._descriptor is not None

    def take(self, what: str, rows: np.ndarray) -> bool:
        """Claim rows of something, all or none; False if another process has one of them."""
        taken: list[tuple[int, int]] = []
        for start, stop in self._runs(rows):
            if not platform.lock_range(*self._range(what, start, stop)):
                for run in taken:
                    platform.unlock_range(*self._range(what, *run))
                return False
            taken.append((start, stop))
        return True

    def release(self, what: str, rows: np.ndarray) -> None:
        """Let others have the rows."""
        for start, stop in self._runs(rows):
            platform.unlock_range(*self._range(what, start, stop))

    def once(
        self, what: str, numbers: Iterable[int], is_done: Callable[[int], bool], do: Callable[[int], None]
    ) -> None:
        """Return once some numbered jobs are done, each by one process if there are claims."""
        if not self.exclude:
            for share in iter_pending(list(numbers), lambda some: [number for number in some if not is_done(number)]):
                for number in share:
                    if not is_done(number):
                        do(number)
            return
        while left := [number for number in numbers if not is_done(number)]:
            tried = [self._attempt(what, number, is_done, do) for number in left]
            if not any(tried):
                time.sleep(POLL)

    def _attempt(self, what: str, number: int, is_done: Callable[[int], bool], do: Callable[[int], None]) -> bool:
        only = np.array([number])
        if not self.take(what, only):
            return False
        try:
            if not is_done(number):
                do(number)
        finally:
            self.release(what, only)
        return True

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
    """The claims of this process in a store.

    Raises:
        PermissionError: if the store can't be written to.
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
