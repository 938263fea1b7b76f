"""An experiment: one set of targets, featurized by each checkpoint, and their scores."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from trak.store import location as places
from trak.store.arrays import Rows, StoreError, row_array, write_file
from trak.store.groups import child_names, subgroup, write_whole
from trak.store.table import Table

if TYPE_CHECKING:
    from trak.store.store import FeatureStore


class Experiment:
    """Targets, featurized by each checkpoint, and their scores."""

    def __init__(self, store: "FeatureStore", name: str) -> None:
        self.store, self.name = store, name
        self._group: zarr.Group = store._group[f"experiments/{name}"]  # type: ignore[assignment]
        self.num_targets = int(self._group.attrs["num_targets"])  # type: ignore[arg-type]

    def checkpoints(self) -> list[int]:
        """Ids of the checkpoints that have featurized targets, in order."""
        return sorted(int(name) for name in child_names(self._group, "targets"))

    def add_targets(self, model_id: int) -> Table:
        """The table of the targets' rows for one checkpoint, made if it is new; rows of a checkpoint that was deleted
        and made again with other weights are dropped."""
        config, path = self.store.config, f"targets/{model_id}"
        fingerprint = self.store.fingerprint(model_id)
        with places.locked(self.store._location):
            if path in self._group and self._group[path].attrs.get("fingerprint") != fingerprint:
                del self._group[path]
            group = subgroup(self._group, path, {"fingerprint": fingerprint})
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
        group = self._group[f"targets/{model_id}"]
        if group.attrs.get("fingerprint") != self.store.fingerprint(model_id):
            raise ValueError(
                f"the targets of experiment {self.name!r} were featurized with other weights than model_id {model_id} "
                "has now; call start_scoring_checkpoint and score for it again"
            )
        return Table(group)  # type: ignore[arg-type]

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
                    write_whole(self._group, name, values)
                return np.asarray(array[...])
            if not path.exists():
                write_file(path, fill, shape, "float32")
        return self._mapped_scores(name, path, shape)

    def _mapped_scores(self, name: str, path: Path, shape: tuple[int, int]) -> Rows:
        row_array(self._group, name).read_chunk(0)  # raises if the file is truncated
        return np.memmap(path, "float32", mode="r", shape=shape)
