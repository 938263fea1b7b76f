"""The feature store: every checkpoint's rows, and the experiments that query them."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from trak.naming import did_you_mean
from trak.store import location as places
from trak.store.arrays import Rows, StoreError, row_array, write_file
from trak.store.config import StoreConfig
from trak.store.location import Location
from trak.store.table import Table

_NAME = re.compile(r"(?!zarr\.json)[A-Za-z0-9_][A-Za-z0-9_. -]{0,199}")


class FeatureStore:
    """A zarr v3 group:

    ```
    checkpoints/<model id>/   features, done, output, ... (n rows), gram, checksums; attribute: fingerprint
    experiments/<name>/       attribute: num_targets
        targets/<model id>/   the same columns (num_targets rows)
        scores/<digest>       (n, num_targets) for one way of scoring
    ```

    Anything may be killed at any time: metadata and whole arrays appear in one step, rows count
    only once marked done, and a mapped array handed out is never written to again.
    """

    def __init__(self, group: zarr.Group, where: Location, config: StoreConfig) -> None:
        """Use `create` or `open_store` instead."""
        self._group, self._location, self.config = group, where, config
        self.where = places.shown(where)
        self._verified: set[int] = set()

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
        store.config.check_same(config, store.where)
        return store

    def checkpoints(self) -> list[int]:
        """Ids of the checkpoints, in order."""
        return sorted(int(name) for name in _names(self._group, "checkpoints"))

    def experiments(self) -> list[str]:
        """Names of the experiments, in order."""
        return _names(self._group, "experiments")

    def fingerprint(self, model_id: int) -> str:
        """Hash of a checkpoint's weights."""
        return str(self._checkpoint(model_id).attrs["fingerprint"])

    def add_checkpoint(self, model_id: int, fingerprint: str) -> Table:
        """The table of a checkpoint, made if it is new.

        Raises:
            ValueError: if the id was used for other weights.
        """
        path = f"checkpoints/{check_model_id(model_id)}"
        with places.locked(self._location):
            group = self._subgroup(path, {"fingerprint": fingerprint})
            if group.attrs.get("fingerprint") != fingerprint:
                raise ValueError(
                    f"model_id {model_id} in {self.where} belongs to a checkpoint with fingerprint "
                    f"{group.attrs.get('fingerprint')}, the one loaded has {fingerprint}; give each checkpoint an id "
                    "of its own"
                )
            return Table.create(group, self.config.train_set_size, self.config.proj_dim, self.config.dtype)

    def table(self, model_id: int) -> Table:
        """The table of a checkpoint.

        Raises:
            ValueError: if there is no such checkpoint.
        """
        return Table(self._checkpoint(model_id))

    def is_finalized(self, model_id: int, weighting: str) -> bool:
        """Whether the checkpoint's Gram matrix is stored."""
        array = self._checkpoint(model_id).get(f"gram_{weighting}")
        return isinstance(array, zarr.Array) and array.nchunks_initialized > 0

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
        return self._read_checked(model_id, f"gram_{weighting}")

    def _read_checked(self, model_id: int, name: str) -> Rows:
        group = self._checkpoint(model_id)
        try:
            return np.asarray(group[name][:])  # type: ignore[index]
        except (ValueError, KeyError) as error:
            raise StoreError(
                f"{group.path}/{name} in {self.where} is corrupt ({error}); delete the checkpoint's checksums and its "
                "Gram matrices, and call finalize_features"
            ) from error

    def finalize(self, model_id: int, weighting: str, gram: Rows) -> None:
        """Store a checkpoint's Gram matrix, after checksums of its rows.

        Raises:
            StoreError: if the rows were finalized before and have changed since.
        """
        with places.locked(self._location):
            group, table = self._checkpoint(model_id), self.table(model_id)
            known = group.get("checksums")
            if isinstance(known, zarr.Array) and known.nchunks_initialized:
                table.verify(self._read_checked(model_id, "checksums"))
            else:
                _write_checked(group, "checksums", table.checksums())
            _write_checked(group, f"gram_{weighting}", gram)

    def verify(self, model_id: int) -> None:
        """Compare a finalized checkpoint's rows with their checksums, once for this object.

        Raises:
            StoreError: naming the first chunk that differs.
        """
        if model_id not in self._verified:
            self.table(model_id).verify(self._read_checked(model_id, "checksums"))
            self._verified.add(model_id)

    def experiment(self, name: str) -> "Experiment":
        """An experiment.

        Raises:
            ValueError: if there is none of that name.
        """
        if name not in self.experiments():
            raise ValueError(f"unknown experiment {name!r} in {self.where}: {did_you_mean(name, self.experiments())}")
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
            raise ValueError(f"num_targets must be a positive integer, got {num_targets!r}")
        num_targets = int(num_targets)
        with places.locked(self._location):
            group = self._subgroup(f"experiments/{name}", {"num_targets": num_targets})
        if group.attrs.get("num_targets") != num_targets:
            raise ValueError(
                f"experiment {name!r} in {self.where} has num_targets={group.attrs.get('num_targets')}, got "
                f"num_targets={num_targets}; use another experiment name for other targets"
            )
        return Experiment(self, name)

    def _checkpoint(self, model_id: int) -> zarr.Group:
        group = self._group.get(f"checkpoints/{model_id}")
        if not isinstance(group, zarr.Group):
            known = self.checkpoints() or "none"
            raise ValueError(f"no checkpoint with model_id {model_id} in {self.where}; there are {known}")
        return group

    def _subgroup(self, path: str, attributes: Mapping[str, Any]) -> zarr.Group:
        group = self._group.get(path)
        if isinstance(group, zarr.Group):
            return group
        self._group.require_group(path.split("/")[0])
        return self._group.create_group(path, attributes=dict(attributes))


class Experiment:
    """Targets, featurized by each checkpoint, and their scores."""

    def __init__(self, store: FeatureStore, name: str) -> None:
        self.store, self.name = store, name
        self._group: zarr.Group = store._group[f"experiments/{name}"]  # type: ignore[assignment]
        self.num_targets = int(self._group.attrs["num_targets"])  # type: ignore[arg-type]

    def checkpoints(self) -> list[int]:
        """Ids of the checkpoints that have featurized targets, in order."""
        return sorted(int(name) for name in _names(self._group, "targets"))

    def add_targets(self, model_id: int) -> Table:
        """The table of the targets' rows for one checkpoint, made if it is new."""
        config = self.store.config
        with places.locked(self.store._location):
            group = self.store._subgroup(f"{self._group.path}/targets/{model_id}", {})
            return Table.create(group, self.num_targets, config.proj_dim, config.dtype)

    def targets(self, model_id: int) -> Table:
        """The table of the targets' rows for one checkpoint.

        Raises:
            ValueError: if there is none.
        """
        if model_id not in self.checkpoints():
            raise ValueError(
                f"experiment {self.name!r} has no targets featurized by model_id {model_id}, only by "
                f"{self.checkpoints() or 'none'}; call start_scoring_checkpoint and score for it, or finalize with "
                "model_ids or allow_skip=True"
            )
        return Table(self._group[f"targets/{model_id}"])  # type: ignore[arg-type]

    def forget_scores(self) -> None:
        """Delete scores that no longer belong to the targets."""
        root = places.local_root(self.store._location)
        with places.locked(self.store._location, places.SCORES), places.locked(self.store._location):
            scores = self._group.get("scores")
            for name in list(scores.array_keys()) if isinstance(scores, zarr.Group) else []:
                if root is not None:
                    # Before the metadata: a kill in between must not leave scores that nothing forgets.
                    self._scores_file(root, f"scores/{name}").unlink(missing_ok=True)
                del self._group[f"scores/{name}"]

    def _scores_file(self, root: Path, name: str) -> Path:
        return root / self._group.path / name / "c" / "0" / "0"

    def scores(self, settings: Mapping[str, Any], fill: Callable[[Rows], None]) -> Rows:
        """The scores (n, num_targets) for one way of scoring, float32, filled if they are not there.

        A local store's are mapped read-only; any other's are read into memory.

        Args:
            settings: what decides the numbers besides features and targets.
            fill: writes the scores into the array that it is given.
        """
        digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
        name, shape = f"scores/{digest}", (self.store.config.train_set_size, self.num_targets)
        root = places.local_root(self.store._location)
        path = None if root is None else self._scores_file(root, name)
        if path is not None and path.exists():
            return self._mapped_scores(name, path, shape)
        with places.locked(self.store._location):
            if name not in self._group:
                self._group.require_group("scores")
                self._group.create_array(
                    name, shape=shape, chunks=shape, dtype="float32", compressors=None, attributes=dict(settings)
                )
            array = self._group[name]
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{name} of experiment {self.name!r} is no array")
        with places.locked(self.store._location, places.SCORES):
            if path is None:
                if not array.nchunks_initialized:
                    values = np.empty(shape, np.float32)
                    fill(values)
                    _write_whole(self._group, name, values)
                return np.asarray(array[...])
            if not path.exists():
                write_file(path, fill, shape, "float32")
        return self._mapped_scores(name, path, shape)

    def _mapped_scores(self, name: str, path: Path, shape: tuple[int, int]) -> Rows:
        row_array(self._group, name).read_chunk(0)  # raises if the file is truncated
        return np.memmap(path, "float32", mode="r", shape=shape)


def _write_checked(group: zarr.Group, name: str, value: Rows) -> None:
    if name not in group:
        group.create_array(name, shape=value.shape, chunks=value.shape, dtype=value.dtype, compressors=[Crc32cCodec()])
    _write_whole(group, name, value)


def _write_whole(group: zarr.Group, name: str, value: Rows) -> None:
    # By default zarr leaves a chunk of zeros out, which would look like one never written.
    with zarr.config.set({"array.write_empty_chunks": True}):
        group[name][...] = value  # type: ignore[index]


def _names(group: zarr.Group, child: str) -> list[str]:
    below = group.get(child)
    return sorted(below.group_keys()) if isinstance(below, zarr.Group) else []


def _open(where: Location, mode: str) -> FeatureStore:
    shown, root = places.shown(where), places.local_root(where)
    try:
        if root is not None and not places.exists(where):
            raise FileNotFoundError(shown)  # zarr would make the directory
        group = places.open_group(where, mode)
        attributes = group.attrs.asdict()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no feature store at {shown}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{shown} can't be read as a zarr v3 group: {error}") from error
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
        raise TypeError(f"model_id must be an integer, got {model_id!r}")
    if model_id < 0:
        raise ValueError(f"model_id must be 0 or more, got {model_id}")
    return int(model_id)


def missing_rows(table: Table) -> list[int]:
    """Indices of the rows that are not done."""
    return np.flatnonzero(~table.is_done()).tolist()
