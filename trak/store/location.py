"""Where a store lives: a local directory, a URL, or a zarr store object."""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, ObjectStore

from trak.store.checks import UNREADABLE, check_is_file
from trak.store.object_store import Bucket, is_bucket, open_bucket, without_secrets

Location = str | os.PathLike[str] | Store

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_ZARR_PARTIAL = re.compile(r"(zarr|\d+)\.[0-9a-f]{32}\.partial")
LOCK = ".lock"
PARTIAL = ".trak-partial"
SCORES = "-scores"
_FOLDERS = ("checkpoints", "experiments", "models", "ground_truth")
"""Folders of stores of every kind, where killed processes may leave half-written files."""
_NO_ROOM = "no room to write"


def check_location(location: Any) -> None:
    """Raise a TypeError if it can't be the place of a store, a ValueError if it can't be a path."""
    if not isinstance(location, str | os.PathLike | Store):
        raise TypeError(
            f"save_dir must be a path, a URL or a zarr store, got {type(location).__name__}; give one, such as "
            "'./trak_results'"
        )
    if not str(location) or "\0" in str(location):
        raise ValueError(f"save_dir {str(location)!r} is no path; give one, such as './trak_results'")


def local_root(location: Location) -> Path | None:
    """The directory of a local store, None for any other."""
    if isinstance(location, LocalStore):
        return Path(location.root)
    if isinstance(location, os.PathLike):
        return Path(location).expanduser()
    if isinstance(location, str):
        if location.startswith("file://"):
            return Path(location.removeprefix("file://"))
        return None if _URL.match(location) else Path(location).expanduser()
    return None


def display_name(location: Location) -> str:
    """The location as messages name it, without credentials."""
    root = local_root(location)
    return without_secrets(str(location)) if root is None else str(root)


def exists(location: Location) -> bool:
    """Whether a zarr group is there."""
    root = local_root(location)
    if root is not None:
        return (root / "zarr.json").exists()
    try:
        open_group(location, mode="r")
    except FileNotFoundError:
        return False
    except UNREADABLE:
        return True  # damaged, which is said when it is opened
    return True


def open_group(location: Location, mode: str) -> zarr.Group:
    """The root group: mode "r" to read, "r+" to write to an existing one."""
    root = local_root(location)
    if root is not None:
        check_is_file(root / "zarr.json")
    # Consolidated metadata could name anything, also what is outside of the store.
    return zarr.open_group(_store(location), mode=mode, use_consolidated=False)  # type: ignore[arg-type]


def create_group(location: Location, attributes: dict[str, Any]) -> None:
    """A new root group, its attributes written with it in one step, unless another process has just made one."""
    store = _store(location)
    if isinstance(store, Bucket):
        store.create_group("", attributes)
    else:
        zarr.create_group(store, attributes=attributes)


def _store(location: Location) -> Any:
    root = local_root(location)
    if root is not None:
        return LocalStore(root)
    if isinstance(location, str) and is_bucket(location):
        return open_bucket(location)
    if isinstance(location, ObjectStore) and not isinstance(location, Bucket):
        return Bucket(location.store, read_only=location.read_only)
    return location


def make_directory(location: Location) -> None:
    """Create a local store's directory and check that it can be written to.

    Raises:
        TypeError, ValueError: if the location is none.
        PermissionError: if it can't.
        NotADirectoryError: if something else is there.
    """
    check_location(location)
    root = local_root(location)
    if root is None:
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        os.close(open_lock(root / LOCK))
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"save_dir {str(root)!r} is no directory; choose another") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            raise OSError(
                error.errno, f"save_dir {str(root)!r} can't be made ({error.strerror}); choose another"
            ) from error
        raise explained(error, root) from error


def open_lock(path: Path) -> int:
    """A descriptor of a file for locks, made if there is none; never of what a link or a pipe of its name leads to.

    Raises:
        OSError: if it can't be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(
            error.errno, f"{str(path)!r} is a symbolic link, where a file for locks should be; remove it"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{str(path)!r} is no file, where one for locks should be; remove it")
    return descriptor


def explained(error: OSError, root: Path) -> OSError:
    """The error, in words that say what to do if the store can't be written to."""
    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
        return error
    return PermissionError(
        f"save_dir {str(root)!r} can't be written to ({error.strerror}); choose another save_dir, or open "
        "what is there read-only with trak.store.open_store"
    )


@contextmanager
def locked(location: Location, what: str = "") -> Iterator[None]:
    """Exclusive among the processes that do the same thing to one local store; a no-op elsewhere.

    Changing metadata is what is meant by default; it does not nest.

    Raises:
        PermissionError: if the store can't be written to.
    """
    with _lock_file(location, what) as handle:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def shared(location: Location, what: str, alone: Callable[[], None]) -> Iterator[None]:
    """Exclusive of `locked`, but not among the processes that do this; the first of them calls `alone` before.

    Raises:
        PermissionError: if the store can't be written to.
    """
    with _lock_file(location, what) as handle:
        if handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone()
            except BlockingIOError:
                pass
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def _lock_file(location: Location, what: str) -> Iterator[Any]:
    """The open file by which a local store is locked, None for any other."""
    root = local_root(location)
    if root is None:
        yield None
        return
    try:
        handle = os.fdopen(open_lock(root / f"{LOCK}{what}"), "ab")
    except OSError as error:
        raise explained(error, root) from error
    with handle, naming_full_disk(str(root)):
        try:
            yield handle
        finally:
            # Closing is not enough: a loader's worker that was forked meanwhile has the file open, too.
            fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def naming_full_disk(what: str) -> Iterator[None]:
    """While entered, an error that says that there is no room says where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _NO_ROOM in str(error):
            raise
        raise OSError(
            error.errno,
            f"{_NO_ROOM} {what} ({error.strerror}); free some space and run the same script again: it goes on "
            "after what is stored",
        ) from error


def remove_leftovers(location: Location) -> None:
    """Delete half-written files that a killed process left; call it while holding the lock."""
    root = local_root(location)
    if root is None:
        return
    with os.fdopen(open_lock(root / f"{LOCK}{SCORES}"), "ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # a living process is writing scores into one of them
        inside = (leftover for part in _FOLDERS for leftover in (root / part).rglob("*partial"))
        for leftover in (*root.glob("*.partial"), *inside):
            if leftover.name.endswith(PARTIAL) or _ZARR_PARTIAL.fullmatch(leftover.name):
                leftover.unlink(missing_ok=True)
