"""Where a store lives: a local directory, a URL, or a zarr store object."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, ObjectStore

from trak._utils import platform
from trak.store.checks import UNREADABLE, check_is_file
from trak.store.object_store import BUCKETS, Bucket, open_bucket, without_secrets

Location = str | os.PathLike[str] | Store

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""Of two letters at least, for C:// is a drive."""
_ZARR_PARTIAL = re.compile(r"(zarr|\d+)\.[0-9a-f]{32}\.partial")
LOCK = ".lock"
PARTIAL = ".trak-partial"
SCORES = "-scores"
_FOLDERS = ("checkpoints", "experiments", "models", "ground_truth")
"""Folders of stores of every kind, where killed processes may leave half-written files."""
_NO_ROOM = "no room to write"


def check_location(location: Any) -> None:
    """Raise a TypeError if it can't be the place of a store, a ValueError if it can't be a path."""
    name = str(location)
    if not isinstance(location, str | os.PathLike | Store):
        raise TypeError(
            f"save_dir must be a path, a URL or a zarr store, got {type(location).__name__}; give one, such as "
            "'./trak_results'"
        )
    if not name or "\0" in name:
        raise ValueError(f"save_dir {name!r} is no path; give one, such as './trak_results'")
    try:
        local_root(location)
    except RuntimeError as error:
        raise ValueError(f"save_dir {name!r} is not a path ({error}); expected one, such as './results'") from error


def local_root(location: Location) -> Path | None:
    """The absolute path of a local store's directory, None for any other store.

    zarr takes a relative root out of keys wherever they contain it, and a process may change its working directory.
    """
    path = _path(location)
    return path and path.absolute()


def resolved(location: Location) -> Location:
    """The same location, whatever the working directory will be."""
    return local_root(location) or location


def _path(location: Location) -> Path | None:
    if isinstance(location, LocalStore):
        return Path(location.root)
    if isinstance(location, str) and location.lower().startswith("file://"):
        return Path(platform.file_url_path(location))
    if isinstance(location, os.PathLike) or (isinstance(location, str) and not _URL.match(location)):
        return Path(location).expanduser()
    return None


def display_name(location: Location) -> str:
    """The location as messages name it, without credentials."""
    path = _path(location)
    return without_secrets(str(location)) if path is None else str(path)


def exists(location: Location) -> bool:
    """Whether a zarr group is there."""
    root = local_root(location)
    if root is not None:
        return (root / "zarr.json").exists()
    try:
        open_group(location, mode="r")
    except FileNotFoundError:  # which is a ValueError, too
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
    if isinstance(location, str) and location.partition("://")[0].lower() in BUCKETS:
        return open_bucket(location)
    if isinstance(location, ObjectStore) and not isinstance(location, Bucket):
        return Bucket(location.store, read_only=location.read_only)
    return location


def make_directory(location: Location) -> None:
    """Create a local store's directory; an OSError if that is not possible or it can't be written to."""
    check_location(location)
    root = local_root(location)
    if root is None:
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        os.close(platform.open_lock(root / LOCK))
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"save_dir {str(root)!r} is no directory; choose another") from error
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
            raise explained(error, root) from error
        why = f"save_dir {str(root)!r} can't be made ({error.strerror}); choose another"
        raise OSError(error.errno, why) from error


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

    Changing metadata is what is meant by default; it does not nest. Raises a PermissionError if it can't be written to.
    """
    root = local_root(location)
    if root is None:
        yield
        return
    with naming_full_disk(str(root)), ExitStack() as held:
        for name in chain([f"{LOCK}{what}"], _places(root, what)):
            _lock(held, root, name)
        yield


@contextmanager
def shared(root: Path, what: str, alone: Callable[[], None]) -> Iterator[None]:
    """Exclusive of `locked`, but not among the processes that do this; the first of them calls `alone` before.

    Each process locks a file of its own, chosen while it has the lock of `locked`: locks that several may have at the
    same time are not available on every system.
    """
    with naming_full_disk(str(root)), ExitStack() as held:
        with ExitStack() as choosing:
            _lock(choosing, root, f"{LOCK}{what}")
            if _unused(root, what):
                alone()
            next(name for name in _names(what) if _lock(held, root, name, wait=False))
        yield


def _names(what: str) -> Iterator[str]:
    """Names of files of which each process that is in `shared` has locked one."""
    return (f"{LOCK}{what}.{number}" for number in count())


def _places(root: Path, what: str) -> Iterator[str]:
    return takewhile(lambda name: (root / name).exists(), _names(what))


def _unused(root: Path, what: str) -> bool:
    """Whether no process is in `shared`; call it with the lock of `locked`."""
    with ExitStack() as tried:
        return all(_lock(tried, root, place, wait=False) for place in _places(root, what))


def _lock(held: ExitStack, root: Path, name: str, wait: bool = True) -> bool:
    """Whether a file for locks in a store's root is locked now, until `held` is closed."""
    try:
        descriptor = platform.open_lock(root / name)
    except OSError as error:
        raise explained(error, root) from error
    held.callback(platform.close_lock, descriptor)
    return platform.lock_file(descriptor, wait)


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
    with ExitStack() as held:
        if not (_lock(held, root, f"{LOCK}{SCORES}", wait=False) and _unused(root, SCORES)):
            return  # a living process is writing scores into one of them
        inside = (leftover for part in _FOLDERS for leftover in (root / part).rglob("*partial"))
        for leftover in (*root.glob("*.partial"), *inside):
            if leftover.name.endswith(PARTIAL) or _ZARR_PARTIAL.fullmatch(leftover.name):
                platform.delete(leftover)
