"""Operating-system differences: the only module that asks which system this is, and what Python offers on it."""

import errno
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import filelock

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

POLL = 0.005
"""Seconds between attempts at a lock."""
_WINDOWS = os.name == "nt"
_BINARY = getattr(os, "O_BINARY", 0)
_REPLACE_SECONDS = 2.0
_PARENT_SECONDS = 0.5
_ZEROS = 1 << 20
_RESERVED = re.compile(r"(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(?: *\..*)?")


def has_range_locks() -> bool:
    """Whether ranges of a file can be locked, as `lock_range` does."""
    return fcntl is not None


def lock_range(descriptor: int, start: int, length: int) -> bool:
    """Lock bytes of a file for this process; False if another process has one of them.

    These are POSIX record locks. The kernel drops them with the process, forks do not inherit them, and within one
    process they do not exclude each other.
    """
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock_range(descriptor: int, start: int, length: int) -> None:
    """Release bytes that `lock_range` locked."""
    fcntl.lockf(descriptor, fcntl.LOCK_UN, length, start)


def open_lock(path: Path) -> int:
    """Open a file for locks, created if it is missing. A link or a pipe of that name is not followed."""
    flags = os.O_RDWR | os.O_CREAT | _BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{str(path)!r} is a symbolic link, where a file for locks should be; remove it")
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{str(path)!r} is not a file, where one for locks should be; remove it")
    return descriptor


def lock_file(descriptor: int, wait: bool = True) -> bool:
    """Lock a file that `open_lock` opened, against every other opening of it; False if it is locked and not to `wait`.

    The system drops the lock with the process. It holds on network file systems, too.
    """
    return filelock.lock_descriptor(descriptor, blocking=wait, poll_interval=POLL)


def close_lock(descriptor: int) -> None:
    """Release a lock and close its file. Closing alone is not enough: a child forked meanwhile has it open, too."""
    with suppress(OSError):  # not locked, where the system minds
        filelock.unlock_descriptor(descriptor)
    os.close(descriptor)


@contextmanager
def open_locked(path: Path, write: bool) -> Iterator[int]:
    """Open a file of data, locked while it is open where the system's locks do not forbid reading and writing.

    Without a lock, a network file system's client may write back whole pages, with stale data in them, and may read
    what it has cached.
    """
    descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | _BINARY)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        try:
            yield descriptor
        finally:
            if fcntl is not None:  # closing leaves it to a loader's worker that was just forked
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read bytes at a place in a file that no other thread has under this descriptor."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write bytes at a place in a file that no other thread has under this descriptor."""
    while data:
        if hasattr(os, "pwrite"):
            written = os.pwrite(descriptor, data, offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            written = os.write(descriptor, data)
        data, offset = data[written:], offset + written


def sync_data(path: Path) -> None:
    """Return once the contents of a file are on disk."""
    descriptor = os.open(path, os.O_RDWR | _BINARY)
    try:
        getattr(os, "fdatasync", os.fsync)(descriptor)
    finally:
        os.close(descriptor)


def reserve(path: Path, size: int) -> None:
    """Make a file of zeros whose space is reserved on disk, or no file."""
    with open(path, "wb") as file:
        try:
            _allocate(file, size)
        except BaseException:
            with suppress(OSError):
                file.close()  # else it cannot be deleted on Windows
            path.unlink()
            raise


def _allocate(file: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, _ZEROS):
        file.write(bytes(min(_ZEROS, size - start)))
    file.flush()


def replace(source: Path, target: Path) -> None:
    """Rename a file in one step, over another if there is one."""
    _retry(lambda: os.replace(source, target), target)


def delete(path: Path) -> None:
    """Delete a file if it is there."""
    _retry(lambda: path.unlink(missing_ok=True), path)


def _retry(action: Any, path: Path) -> None:
    """Windows refuses an action while a process has the file open or mapped: then it is tried for a while."""
    since = time.monotonic()
    while True:
        try:
            return action()
        except PermissionError as error:
            if not _WINDOWS:
                raise
            if time.monotonic() - since > _REPLACE_SECONDS:
                raise PermissionError(
                    error.errno,
                    f"{str(path)!r} is in use by a process ({error.strerror}); delete the arrays that were read from "
                    "it, or end that process, and run the same script again",
                ) from error
        time.sleep(POLL)


def wait_for_end(parent: int) -> None:
    """Return once the process that started this one has ended."""
    if sys.platform == "win32":  # there os.getppid names a process that has ended, too
        import ctypes

        synchronize, forever = 0x00100000, 0xFFFFFFFF
        kernel = ctypes.windll.kernel32
        kernel.WaitForSingleObject(kernel.OpenProcess(synchronize, False, parent), forever)
        return
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)


def file_url_path(url: str, windows: bool = _WINDOWS) -> str:
    """The path of a file:// URL, in which special characters may be percent-encoded.

    On Windows ``file:///C:/a`` is a path of a drive, and ``file://server/a`` one of a server.
    """
    path = unquote(url.partition("://")[2])
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    if windows and re.match(r"/[A-Za-z][:|]", path):
        return f"{path[1]}:{path[3:]}"
    if windows and not path.startswith("/") and not re.match(r"[A-Za-z]:", path):
        return f"//{path}"
    return path


def is_portable_name(name: str) -> bool:
    """Whether every system takes the name for a file; Windows refuses CON, NUL and others, and a dot or space at the
    end."""
    return not name.endswith((".", " ")) and not _RESERVED.fullmatch(name)
