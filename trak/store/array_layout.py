"""Which arrays are rows of ours, and how they are read and written."""

from pathlib import Path

import zarr
from zarr.storage import LocalStore

from trak.store.checks import StoreError, checked
from trak.store.mapped_array import MappedArray
from trak.store.remote_array import RemoteArray
from trak.store.row_array import RowArray

_KEYS = {"name": "default", "configuration": {"separator": "/"}}
_CODECS = ({"name": "bytes"},), ({"name": "bytes", "configuration": {"endian": "little"}},)
"""Of arrays whose chunks are files of numbers as they are in memory, by their number."""


def row_array(group: zarr.Group, name: str) -> RowArray:
    """The array `name` of a group; a StoreError if it is missing, or laid out as this library lays out none."""
    array = checked(group, name)
    where = f"{group.path or '/'} of {group.store}"
    if array is None:
        raise StoreError(f"array {name!r} is missing from {where}; restore it from a copy, or choose another save_dir")
    if not isinstance(array, zarr.Array) or array.ndim < 1 or array.chunks[1:] != array.shape[1:]:
        raise StoreError(
            f"{name!r} in {where} is not an array of rows chunked along its first dimension; restore its metadata "
            "from a copy"
        )
    if (
        not 1 <= array.chunks[0] <= array.shape[0]
        or array.dtype.kind not in "iuf"
        or (stored := array.metadata.to_dict()).get("chunk_key_encoding") != _KEYS
        or stored.get("codecs") not in _CODECS
    ):
        raise StoreError(
            f"array {name!r} in {where} is not laid out as this library writes it, with rows and without compression; "
            "restore its metadata from a copy"
        )
    if isinstance(group.store, LocalStore):
        return MappedArray(array, Path(group.store.root))
    return RemoteArray(array)
