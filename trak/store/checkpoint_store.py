"""The checkpoints of a feature store: rows and Gram matrices, and the weights that they are of."""

from functools import cached_property

import numpy as np
import zarr

from trak._utils.typing import Array
from trak.store import location as places
from trak.store.checks import CheckpointMismatchError, StoreError, check_inside, checked
from trak.store.location import Location
from trak.store.locks import RowLocks, row_locks
from trak.store.manifest import StoreConfig
from trak.store.table import Table
from trak.store.zarr_groups import is_written, model_ids, read_checked, subgroup, write_checked

GRAMS = ("gram_ggn", "gram_identity")
"""Names of the Gram matrices, one for each weighting."""


class CheckpointStore:
    """Rows of the training examples and Gram matrices of each checkpoint."""

    def __init__(self, group: zarr.Group, where: Location, config: StoreConfig) -> None:
        """Use `FeatureStore.create` or `open_store` instead."""
        self.group, self.location, self.config = group, places.resolved(where), config
        self.where = places.display_name(where)
        self._verified: dict[int, tuple[Table, set[int]]] = {}

    @cached_property
    def locks(self) -> RowLocks:
        """The row locks of this process."""
        return row_locks(self.location)

    def checkpoints(self) -> list[int]:
        """Ids of the checkpoints, in order."""
        return model_ids(self.group, "checkpoints")

    def fingerprint(self, model_id: int) -> str:
        """Hash of a checkpoint's weights; a ValueError if there is no such checkpoint."""
        found = self._checkpoint(model_id).attrs.get("fingerprint")
        if not isinstance(found, str):
            raise StoreError(f"checkpoint {model_id} in {self.where} has no fingerprint; restore its zarr.json")
        return found

    def add_checkpoint(self, model_id: int, fingerprint: str) -> Table:
        """The table of a checkpoint, created if it is new; a CheckpointMismatchError if the id belongs to others."""
        path = f"checkpoints/{check_model_id(model_id)}"
        with places.locked(self.location):
            group = subgroup(self.group, path, {"fingerprint": fingerprint})
            if group.attrs.get("fingerprint") != fingerprint:
                same = [i for i in self.checkpoints() if self.fingerprint(i) == fingerprint]
                remedy = "give each checkpoint an id of its own (with trak.attribute: put new ones last), or use "
                remedy += "another save_dir"
                if same:
                    remedy = f"pass the checkpoints in the order of before, where it is model_id {same[0]}"
                raise CheckpointMismatchError(
                    f"model_id {model_id} in {self.where} belongs to a checkpoint with fingerprint "
                    f"{group.attrs.get('fingerprint')}, the one loaded has {fingerprint}: other weights, or the same "
                    f"in another dtype; {remedy}"
                )
            return Table.create(group, self.config.train_set_size, self.config.proj_dim, self.config.dtype)

    def table(self, model_id: int) -> Table:
        """The table of a checkpoint; a ValueError if there is no such checkpoint."""
        config = self.config
        return Table(self._checkpoint(model_id), config.train_set_size, config.proj_dim, config.dtype)

    def is_finalized(self, model_id: int, weighting: str) -> bool:
        """Whether the checkpoint's Gram matrix is stored."""
        return is_written(self._checkpoint(model_id), f"gram_{weighting}")

    def gram(self, model_id: int, weighting: str) -> Array:
        """The stored Gram matrix, (k, k) in float64; a ValueError if the checkpoint is not finalized."""
        if not self.is_finalized(model_id, weighting):
            raise ValueError(
                f"model_id {model_id} in {self.where} is not finalized for weighting={weighting!r}; "
                "call finalize_features first"
            )
        group, shape = self._checkpoint(model_id), (self.config.proj_dim, self.config.proj_dim)
        return read_checked(group, f"gram_{weighting}", shape, "delete it and call finalize_features")

    def finalize(self, model_id: int, weighting: str, gram: Array) -> None:
        """Store a checkpoint's Gram matrix; a StoreError if a row has changed since it was written."""
        self.verify(model_id)
        with places.locked(self.location):
            write_checked(self._checkpoint(model_id), f"gram_{weighting}", gram)

    def delete_grams(self, model_id: int) -> None:
        """Delete a checkpoint's Gram matrices, so that it has to be finalized again."""
        group = self._checkpoint(model_id)
        with places.locked(self.location):
            for name in GRAMS:
                check_inside(group, name)
                del group[name]

    def verify(self, model_id: int, only: int | None = None) -> None:
        """Compare the rows of a featurized checkpoint, or those of one chunk, with their checksums; each chunk once."""
        if model_id not in self._verified:
            self._verified[model_id] = self.table(model_id), set()
        table, known = self._verified[model_id]
        for chunk, rows in table.chunks(only):
            if chunk in known:
                continue
            done = table.is_done(rows)
            if not done.all():
                raise StoreError(
                    f"row {rows[np.argmin(done)]} of checkpoints/{model_id} in {self.where} is lost; restore it from a "
                    "copy, or use trak repair and run the same script again, which computes what is missing"
                )
            table.verify(chunk)
            known.add(chunk)

    def _checkpoint(self, model_id: int) -> zarr.Group:
        group = checked(self.group, f"checkpoints/{model_id}")
        if not isinstance(group, zarr.Group):
            raise ValueError(
                f"no checkpoint with model_id {model_id} in {self.where}; there are {self.checkpoints() or 'none'}; "
                "call load_checkpoint with this id first, or use another"
            )
        return group


def check_model_id(model_id: int) -> int:
    """The id as an int.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is negative.
    """
    if isinstance(model_id, bool) or not hasattr(model_id, "__index__"):
        raise TypeError(
            f"model_id must be an integer, got {model_id!r}; use 0 for the first checkpoint, 1 for the next"
        )
    if model_id < 0:
        raise ValueError(f"model_id must be 0 or more, got {model_id}; use 0 for the first checkpoint, 1 for the next")
    return int(model_id)


def missing_rows(table: Table) -> list[int]:
    """Indices of the rows that are not done."""
    return [row for start, stop in table.undone() for row in range(start, stop)]
