"""Checks of stored content, which is never trusted: unreadable metadata, and paths that leave the store."""

from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""Exceptions that zarr raises for invalid metadata."""


class StoreError(ValueError):
    """The store is damaged, or was not written by this library."""


class ConfigMismatchError(ValueError):
    """The recorded configuration of a store does not match the one asked for."""


class CheckpointMismatchError(ValueError):
    """A model_id belongs to a checkpoint with other weights."""


def checked(group: zarr.Group, path: str) -> zarr.Group | zarr.Array[Any] | None:
    """The group or array at a path, or None; a StoreError if its metadata is invalid."""
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
    """Raise a ValueError if the path of a metadata file is not a regular file: reading from a pipe would hang."""
    if metadata.exists() and not metadata.is_file():
        raise ValueError(f"{str(metadata)!r} is no file")


def check_inside(group: zarr.Group, path: str) -> None:
    """Raise a StoreError if a path, which may not exist yet, leaves a local store through a symbolic link."""
    if isinstance(group.store, LocalStore):
        root = Path(group.store.root)
        check_path_inside(root / group.path / path, root)


def check_path_inside(path: Path, root: Path) -> None:
    """Raise a StoreError if a file's path leaves a directory through a symbolic link."""
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except RuntimeError:  # links in a circle
        inside = False
    if not inside:
        raise StoreError(
            f"{str(path)!r} leads out of the store by a symbolic link, so nothing is written there; put what it leads "
            "to in its place"
        )
