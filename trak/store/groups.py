"""Zarr groups: children by name, and small arrays that are written whole."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from trak.store.arrays import Rows, StoreError


def checked(group: zarr.Group, path: str) -> zarr.Group | zarr.Array[Any] | None:
    """What is at a path, or None.

    Raises:
        StoreError: if it can't be read.
    """
    try:
        return group.get(path)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path!r} in {group.store_path} can't be read as zarr ({error}); restore it or delete it"
        ) from error


def child_names(group: zarr.Group, child: str) -> list[str]:
    """Names of the groups in a subgroup, in order; none if it is missing."""
    below = checked(group, child)
    return sorted(below.group_keys()) if isinstance(below, zarr.Group) else []


def subgroup(group: zarr.Group, path: str, attributes: Mapping[str, Any]) -> zarr.Group:
    """The group at a path, made with its attributes in one step if it is missing."""
    found = checked(group, path)
    if isinstance(found, zarr.Group):
        return found
    group.require_group(path.split("/")[0])
    return group.create_group(path, attributes=dict(attributes))


def is_written(group: zarr.Group, name: str) -> bool:
    """Whether an array is there with its contents."""
    array = checked(group, name)
    return isinstance(array, zarr.Array) and array.nchunks_initialized > 0


def write_checked(group: zarr.Group, name: str, value: Rows) -> None:
    """Write an array with a checksum, in one chunk."""
    if name not in group:
        group.create_array(name, shape=value.shape, chunks=value.shape, dtype=value.dtype, compressors=[Crc32cCodec()])
    write_whole(group, name, value)


def write_whole(group: zarr.Group, name: str, value: Rows) -> None:
    """Fill an existing array of one chunk."""
    # By default zarr leaves a chunk of zeros out, which would look like one never written.
    with zarr.config.set({"array.write_empty_chunks": True}):
        group[name][...] = value  # type: ignore[index]


def read_checked(group: zarr.Group, name: str, cure: str) -> Rows:
    """Read an array that `write_checked` wrote.

    Raises:
        StoreError: if it is damaged; `cure` says what to do.
    """
    try:
        return np.asarray(group[name][:])  # type: ignore[index]
    except (ValueError, KeyError) as error:
        raise StoreError(f"{group.path}/{name} in {group.store} is corrupt ({error}); {cure}") from error
