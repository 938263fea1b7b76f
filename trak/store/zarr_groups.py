"""Zarr groups: children by name, and small arrays that are written whole."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from trak._utils.typing import Array
from trak.store.checks import UNREADABLE, StoreError, check_inside, checked
from trak.store.object_store import Bucket
from trak.store.row_array import new_array

_MOST_CHUNKS = 1 << 20
_MODEL_ID = re.compile(r"0|[1-9][0-9]{0,17}")


def child_names(group: zarr.Group, child: str, kind: type = zarr.Group) -> list[str]:
    """Names of the groups, or of the arrays, in a subgroup, in order; none if it is missing."""
    below = checked(group, child)
    if not isinstance(below, zarr.Group):
        return []
    try:
        if not isinstance(below.store, LocalStore):
            return sorted(below.group_keys() if kind is zarr.Group else below.array_keys())
    except UNREADABLE as error:
        raise StoreError(
            f"{child!r} in {group.store_path} can't be listed ({error}); restore it from a copy"
        ) from error
    names = os.listdir(Path(below.store.root, below.path))
    return sorted(name for name in names if name != "zarr.json" and isinstance(checked(below, name), kind))


def model_ids(group: zarr.Group, child: str) -> list[int]:
    """The numbers that the groups in a subgroup are called by, in order; a StoreError if one has another name."""
    names = child_names(group, child)
    if wrong := [name for name in names if not _MODEL_ID.fullmatch(name)]:
        raise StoreError(f"{wrong[0]!r} among {child} of {group.store_path} is no model_id; remove it")
    return sorted(map(int, names))


def subgroup(group: zarr.Group, path: str, attributes: Mapping[str, Any]) -> zarr.Group:
    """The group at a path, made with its attributes in one step if it is missing."""
    check_inside(group, path)
    found = checked(group, path)
    if isinstance(found, zarr.Group):
        return found
    if parent := path.rpartition("/")[0]:
        subgroup(group, parent, {})
    if not isinstance(group.store, Bucket):
        return group.create_group(path, attributes=dict(attributes))
    group.store.create_group(f"{group.path}/{path}", attributes)
    return subgroup(group, path, attributes)


def is_written(group: zarr.Group, name: str) -> bool:
    """Whether an array is there with all of its contents."""
    array = checked(group, name)
    # zarr compares each chunk that could be there.
    if not isinstance(array, zarr.Array) or not 0 < array.nchunks <= _MOST_CHUNKS:
        return False
    if isinstance(group.store, LocalStore):  # which has such arrays whole
        chunk = Path(group.store.root, group.path, name, "c", *["0"] * array.ndim)
        return array.nchunks == 1 and chunk.is_file()
    return array.nchunks_initialized >= array.nchunks


def write_checked(group: zarr.Group, name: str, value: Array) -> None:
    """Write an array with a checksum, in one chunk."""
    check_inside(group, f"{name}/c/0/0")
    found = checked(group, name)
    if isinstance(found, zarr.Array) and (found.shape, found.chunks) != (value.shape, value.shape):
        del group[name]  # damaged, and not to be filled
    new_array(group, name, value.shape, value.shape, value.dtype.name, compressors=[Crc32cCodec()])
    write_whole(group, name, value)


def write_whole(group: zarr.Group, name: str, value: Array, where: Any = ...) -> None:
    """Fill an existing array, or whole chunks of it."""
    # By default zarr leaves a chunk of zeros out, which would look like one never written.
    with zarr.config.set({"array.write_empty_chunks": True}):
        group[name][where] = value


def read_checked(group: zarr.Group, name: str, shape: tuple[int, ...], remedy: str) -> Array:
    """Read an array that `write_checked` wrote; a StoreError with the remedy if it is damaged, or of another shape."""
    try:
        array = checked(group, name)
        if not isinstance(array, zarr.Array) or array.shape != shape or array.chunks != shape:
            raise ValueError(f"its shape should be {shape}")
        return np.asarray(array[:])
    except UNREADABLE as error:
        raise StoreError(f"{group.path}/{name} in {group.store} is corrupt ({error}); {remedy}") from error
