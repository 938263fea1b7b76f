"""Create and open the root group of a store of any kind."""

from typing import TypeVar

import zarr

from trak.store import location as places
from trak.store.checks import UNREADABLE, StoreError
from trak.store.location import Location
from trak.store.manifest import StoreManifest

M = TypeVar("M", bound=StoreManifest)


def create_root(where: Location, manifest: StoreManifest) -> None:
    """Create a store unless there is one, and remove half-written files that killed processes left."""
    places.make_directory(where)
    with places.locked(where):
        places.remove_leftovers(where)
        if places.exists(where):
            return
        try:
            places.create_group(where, manifest.attributes())
        except ValueError as error:
            name = places.display_name(where)
            raise StoreError(f"{name} holds no {manifest.kind} ({error}); choose another save_dir") from error


def open_root(where: Location, mode: str, kind: type[M]) -> tuple[zarr.Group, M]:
    """The root group of a store and its manifest; mode is "r" to read or "r+" to write."""
    places.check_location(where)
    name, root = places.display_name(where), places.local_root(where)
    try:
        if root is not None and not places.exists(where):
            raise FileNotFoundError(name)  # zarr would make the directory
        group = places.open_group(where, mode)
        attributes = group.attrs.asdict()
    except FileNotFoundError as error:
        nearby = [] if root is None else [path for pattern in kind.nearby for path in root.glob(f"{pattern}/zarr.json")]
        found = f"; there is one at {nearby[0].parent}" if nearby else ""
        raise FileNotFoundError(
            f"there is no {kind.kind} at {name}; check the path, or make one with {kind.made_by}{found}"
        ) from error
    except UNREADABLE as error:
        raise StoreError(
            f"{name} can't be read as a zarr v3 group: {error}; restore it from a copy, or choose another save_dir"
        ) from error
    return group, kind.from_attributes(attributes, name)
