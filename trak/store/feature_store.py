"""The feature store: every checkpoint's rows, and the experiments that query them."""

import re
from functools import cached_property
from pathlib import Path

import numpy as np
import zarr

from trak._utils.messages import suggest
from trak.store import location as places
from trak.store.checks import UNREADABLE, StoreError, check_inside, checked
from trak.store.experiment import Experiment
from trak.store.location import Location
from trak.store.locks import RowLocks, row_locks
from trak.store.manifest import StoreConfig
from trak.store.row_array import Rows
from trak.store.table import Table
from trak.store.zarr_groups import child_names, is_written, model_ids, read_checked, subgroup, write_checked

GRAMS = ("gram_ggn", "gram_identity")
"""Names of the Gram matrices, one for each weighting."""
_NAME = re.compile(r"(?!zarr\.json)[A-Za-z0-9_][A-Za-z0-9_. -]{0,199}")


class FeatureStore:
    """A zarr v3 group::

        checkpoints/<model id>/   features, done, output, ... (n rows), gram_...; attribute: fingerprint
        experiments/<name>/       attribute: num_targets
            targets/<model id>/   the same columns (num_targets rows)
            scores/<digest>       (n, num_targets) for one way of scoring

    Anything may be killed at any time: metadata and whole arrays appear in one step, rows count
    only once marked done, and a mapped array handed out is never written to again.
    """

    def __init__(self, group: zarr.Group, where: Location, config: StoreConfig) -> None:
        """Use `create` or `open_store` instead."""
        self._group, self.location, self.config = group, where, config
        self.where = places.shown(where)
        self._verified: dict[int, tuple[Table, set[int]]] = {}

    @classmethod
    def create(cls, where: Location, config: StoreConfig) -> "FeatureStore":
        """The store at a location, made if there is none, ready to be written to.

        Raises:
            ValueError: if one is there that was made with another configuration.
            StoreError: if what is there can't be read.
            PermissionError: if the directory can't be written to.
        """
        places.make_directory(where)
        with places.locked(where):
            places.remove_leftovers(where)
            if not places.exists(where):
                try:
                    places.create_group(where, config.attributes())
                except ValueError as error:
                    shown = places.shown(where)
                    raise StoreError(f"{shown} holds no feature store ({error}); choose another save_dir") from error
        store = _open(where, "r+")
        try:
            store.config.check_same(config, store.where)
        except ValueError as error:
            if store.is_empty():
                raise ValueError(f"{error}; or delete {store.where}, where no row is stored yet") from None
            raise
        return store

    def is_empty(self) -> bool:
        """Whether no row of any checkpoint is stored."""
        return all(self.table(i).count_undone() == self.config.train_set_size for i in self.checkpoints())

    @cached_property
    def locks(self) -> RowLocks:
        """What this process has for itself among those that use the store."""
        return row_locks(self.location)

    def checkpoints(self) -> list[int]:
        """Ids of the checkpoints, in order."""
        return model_ids(self._group, "checkpoints")

    def experiments(self) -> list[str]:
        """Names of the experiments, in order."""
        return child_names(self._group, "experiments")

    def fingerprint(self, model_id: int) -> str:
        """Hash of a checkpoint's weights.

        Raises:
            ValueError: if there is no such checkpoint.
            StoreError: if it is not recorded.
        """
        found = self._checkpoint(model_id).attrs.get("fingerprint")
        if not isinstance(found, str):
            raise StoreError(f"checkpoint {model_id} in {self.where} has no fingerprint; restore its zarr.json")
        return found

    def add_checkpoint(self, model_id: int, fingerprint: str) -> Table:
        """The table of a checkpoint, made if it is new.

        Raises:
            ValueError: if the id was used for other weights.
        """
        path = f"checkpoints/{check_model_id(model_id)}"
        with places.locked(self.location):
            group = subgroup(self._group, path, {"fingerprint": fingerprint})
            if group.attrs.get("fingerprint") != fingerprint:
                same = [i for i in self.checkpoints() if self.fingerprint(i) == fingerprint]
                cure = (
                    f"pass the checkpoints in the order of before, where it is model_id {same[0]}"
                    if same
                    else "give each checkpoint an id of its own (with trak.attribute: put new ones last), or use "
                    "another save_dir"
                )
                raise ValueError(
                    f"model_id {model_id} in {self.where} belongs to a checkpoint with fingerprint "
                    f"{group.attrs.get('fingerprint')}, the one loaded has {fingerprint}: other weights, or the same "
                    f"in another dtype; {cure}"
                )
            return Table.create(group, *self._layout(self.config.train_set_size))

    def table(self, model_id: int) -> Table:
        """The table of a checkpoint.

        Raises:
            ValueError: if there is no such checkpoint.
        """
        return Table(self._checkpoint(model_id), *self._layout(self.config.train_set_size))

    def _layout(self, rows: int) -> tuple[int, int, str]:
        return rows, self.config.proj_dim, self.config.dtype

    def is_finalized(self, model_id: int, weighting: str) -> bool:
        """Whether the checkpoint's Gram matrix is stored."""
        return is_written(self._checkpoint(model_id), f"gram_{weighting}")

    def gram(self, model_id: int, weighting: str) -> Rows:
        """The stored Gram matrix, (k, k) in float64.

        Raises:
            ValueError: if the checkpoint is not finalized.
            StoreError: if the matrix is damaged.
        """
        if not self.is_finalized(model_id, weighting):
            raise ValueError(
                f"model_id {model_id} in {self.where} is not finalized for weighting={weighting!r}; "
                "call finalize_features first"
            )
        cure = "delete it and call finalize_features"
        shape = self.config.proj_dim, self.config.proj_dim
        return read_checked(self._checkpoint(model_id), f"gram_{weighting}", shape, cure)

    def finalize(self, model_id: int, weighting: str, gram: Rows) -> None:
        """Store a checkpoint's Gram matrix, after a look at its rows.

        Raises:
            StoreError: if a row has changed since it was written.
        """
        self.verify(model_id)
        with places.locked(self.location):
            write_checked(self._checkpoint(model_id), f"gram_{weighting}", gram)

    def forget_grams(self, model_id: int) -> None:
        """Delete a checkpoint's Gram matrices, so that it has to be finalized again."""
        group = self._checkpoint(model_id)
        with places.locked(self.location):
            for name in GRAMS:
                check_inside(group, name)
                del group[name]

    def verify(self, model_id: int, only: int | None = None) -> None:
        """Compare the rows of a checkpoint that is featurized, or those of one chunk, with their checksums, once for
        this object.

        Raises:
            StoreError: naming the first row that differs or is not there.
        """
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

    def experiment(self, name: str) -> "Experiment":
        """An experiment.

        Raises:
            ValueError: if there is none of that name.
        """
        if name not in self.experiments():
            raise ValueError(f"unknown experiment {name!r} in {self.where}: {suggest(name, self.experiments())}")
        return Experiment(self, name)

    def add_experiment(self, name: str, num_targets: int) -> "Experiment":
        """An experiment, made if it is new.

        Raises:
            ValueError: if it was made for another number of targets, or the name can't be used.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"experiment name {name!r} can't be used; use letters, digits, '_', '-', '.' and spaces, at most 200, "
                "beginning with a letter, a digit or '_'"
            )
        if isinstance(num_targets, bool) or not hasattr(num_targets, "__index__") or num_targets < 1:
            raise ValueError(
                f"num_targets must be a positive integer, got {num_targets!r}; give the number of targets, 1 or more"
            )
        num_targets = int(num_targets)
        with places.locked(self.location):
            group = subgroup(self._group, f"experiments/{name}", {"num_targets": num_targets})
        if group.attrs.get("num_targets") != num_targets:
            raise ValueError(
                f"experiment {name!r} in {self.where} has num_targets={group.attrs.get('num_targets')}, got "
                f"num_targets={num_targets}; use another name (exp_name=) for other targets"
            )
        return Experiment(self, name)

    def _checkpoint(self, model_id: int) -> zarr.Group:
        group = checked(self._group, f"checkpoints/{model_id}")
        if not isinstance(group, zarr.Group):
            known = self.checkpoints() or "none"
            raise ValueError(
                f"no checkpoint with model_id {model_id} in {self.where}; there are {known}; call load_checkpoint with "
                "this id first, or use another"
            )
        return group


def _open(where: Location, mode: str) -> FeatureStore:
    places.check_location(where)
    shown, root = places.shown(where), places.local_root(where)
    try:
        if root is not None and not places.exists(where):
            raise FileNotFoundError(shown)  # zarr would make the directory
        group = places.open_group(where, mode)
        attributes = group.attrs.asdict()
    except FileNotFoundError as error:
        kept = [] if root is None else [*Path(root).glob("store/zarr.json"), *Path(root).glob("run-*/store/zarr.json")]
        raise FileNotFoundError(
            f"there is no feature store at {shown}; check the path, or make one with trak.attribute"
            + f"; there is one at {kept[0].parent if kept else None}" * bool(kept)
        ) from error
    except UNREADABLE as error:
        raise StoreError(
            f"{shown} can't be read as a zarr v3 group: {error}; restore it from a copy, or choose another save_dir"
        ) from error
    return FeatureStore(group, where, StoreConfig.from_attributes(attributes, shown))


def open_store(where: Location, writable: bool = False) -> FeatureStore:
    """Open a store: a directory, a URL (s3://, gs://, memory://) or a zarr store.

    Args:
        where: its location.
        writable: whether scores may be added; otherwise nothing there is touched.

    Raises:
        FileNotFoundError: if there is none.
        StoreError: if it is damaged or not written by this library.
    """
    return _open(where, "r+" if writable else "r")


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
