"""Nothing that is in a store is trusted: what can't be read, and what leads out of it."""

from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""What zarr raises for metadata that make no sense."""


class ConfigMismatchError(ValueError):
    """A store was made with other settings than those asked for."""


class CheckpointMismatchError(ValueError):
    """A checkpoint is not the one that a store or an experiment was made with."""


class StoreError(ValueError):
    """What is stored is damaged, or is no store of this library."""


def checked(group: zarr.Group, path: str) -> zarr.Group | zarr.Array[Any] | None:
    """What is at a path, or None.

    Raises:
        StoreError: if it can't be read.
    """
    try:
        if isinstance(group.store, LocalStore):
            check_is_file(Path(group.store.root, group.path, path, "zarr.json"))
        found = group.get(path)
        if found is not None and not isinstance(found.metadata.attributes, dict):
            raise ValueError("its attributes are no mapping")
        return found
    except UNREADABLE as error:
        raise StoreError(
            f"{path!r} in {group.store_path} can't be read as zarr ({error}); restore it or delete it"
        ) from error


def check_is_file(metadata: Path) -> None:
    """Raise a ValueError if something else is in the place of a file of metadata: to read from a pipe would hang."""
    if metadata.exists() and not metadata.is_file():
        raise ValueError(f"{str(metadata)!r} is no file")


def check_inside(group: zarr.Group, path: str) -> None:
    """Raise a StoreError if a path, which may not exist yet, is outside of a local store, behind a symbolic link."""
    if isinstance(group.store, LocalStore):
        root = Path(group.store.root)
        check_path_inside(root / group.path / path, root)


def check_path_inside(path: Path, root: Path) -> None:
    """The same of a file in a directory."""
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # links in a circle
        inside = False
    if not inside:
        raise StoreError(
            f"{str(path)!r} leads out of the store by a symbolic link, so nothing is written there; put what it leads "
            "to in its place"
        )
