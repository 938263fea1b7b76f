"""An experiment: one set of targets, featurized by each checkpoint, and their scores."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import zarr

from trak.store import location as places
from trak.store.checkpoint_store import CheckpointStore
from trak.store.checks import CheckpointMismatchError, StoreError, check_inside, checked
from trak.store.score_matrix import CHECKSUM, StoredMatrix, open_matrix
from trak.store.table import Table
from trak.store.zarr_groups import child_names, is_written, model_ids, subgroup

_FAITHFULNESS, _SCORING, _DAMPING = "faithfulness", "scoring", "damping"
"""Measured faithfulness, recorded scoring settings, and the damping that was chosen for "auto"."""


class Experiment:
    """Targets, featurized by each checkpoint, and their scores."""

    def __init__(self, store: CheckpointStore, name: str) -> None:
        self.store, self.name = store, name
        group = checked(store.group, f"experiments/{name}")
        if not isinstance(group, zarr.Group):
            raise StoreError(f"experiment {name!r} in {store.where} is no group; restore it or delete it")
        self._group, found = group, group.attrs.get("num_targets")
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise StoreError(f"experiment {name!r} in {store.where} has num_targets={found!r}; restore its zarr.json")
        self.num_targets = found

    def checkpoints(self) -> list[int]:
        """Ids of the checkpoints that have featurized targets, in order."""
        return model_ids(self._group, "targets")

    def add_targets(self, model_id: int) -> Table:
        """The table of the targets' rows for one checkpoint, created if it is new; rows of a checkpoint that was
        deleted and created again with other weights are dropped."""
        path = f"targets/{model_id}"
        fingerprint = self.store.fingerprint(model_id)
        with places.locked(self.store.location):
            if self._record(path).get("fingerprint") != fingerprint:
                self._delete(path)
            group = subgroup(self._group, path, {"fingerprint": fingerprint})
            return Table.create(group, self.num_targets, self.store.config.proj_dim, self.store.config.dtype)

    def targets(self, model_id: int) -> Table:
        """The table of the targets' rows for one checkpoint.

        Raises:
            ValueError: if there is none.
            CheckpointMismatchError: if the targets were featurized with other weights.
        """
        group = checked(self._group, f"targets/{model_id}")
        if not isinstance(group, zarr.Group):
            raise ValueError(
                f"experiment {self.name!r} has no targets featurized by model_id {model_id}, only by "
                f"{self.checkpoints() or 'none'}; call start_scoring_checkpoint and score for it, or finalize with "
                "model_ids or allow_skip=True"
            )
        if group.attrs.get("fingerprint") != self.store.fingerprint(model_id):
            raise CheckpointMismatchError(
                f"the targets of experiment {self.name!r} were featurized with other weights than model_id {model_id} "
                "has now; call start_scoring_checkpoint and score for it again"
            )
        return Table(group, self.num_targets, self.store.config.proj_dim, self.store.config.dtype)

    def faithfulness_record(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The faithfulness recorded for one way of scoring; empty if none is. Settings as for `score_matrix`."""
        return self._record(f"{_FAITHFULNESS}/{_digest(settings)}")

    def record_faithfulness(self, settings: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Record, ready for JSON, the faithfulness measured for one way of scoring, in place of an earlier record."""
        path = f"{_FAITHFULNESS}/{_digest(settings)}"
        with places.locked(self.store.location):
            self._delete(path)
            subgroup(self._group, path, record)

    def scoring(self) -> dict[str, Any]:
        """The settings that `record_scoring` was given last; empty if none.

        Raises:
            StoreError: if the record is damaged.
        """
        record = self._record(_SCORING)
        ids = record.get("model_ids", [])
        if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
            raise StoreError(
                f"experiment {self.name!r} in {self.store.where} has model_ids={ids!r} in its scoring settings. Delete "
                "its folder scoring."
            )
        return record

    def record_scoring(self, record: Mapping[str, Any]) -> None:
        """Record the settings and checkpoints that the experiment is scored with, in place of an earlier record."""
        with places.locked(self.store.location):
            group = subgroup(self._group, _SCORING, record)
            if group.attrs.asdict() != dict(record):
                group.attrs.put(dict(record))

    def damping(self, decided_by: Mapping[str, Any]) -> dict[str, Any]:
        """The damping recorded first for what decides it; empty if none is."""
        return self._record(f"{_DAMPING}/{_digest(decided_by)}")

    def record_damping(self, decided_by: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """Record a chosen damping unless one is recorded already, and return the recorded one."""
        with places.locked(self.store.location):
            return subgroup(self._group, f"{_DAMPING}/{_digest(decided_by)}", record).attrs.asdict()

    def score_matrix(self, settings: Mapping[str, Any]) -> StoredMatrix:
        """The scores (n, num_targets) of one way of scoring, float32, whether they are computed yet or not.

        Args:
            settings: everything that decides the scores besides features and targets, ready for JSON.
        """
        shape = self.store.config.train_set_size, self.num_targets
        return self._matrix(f"scores/{_digest(settings)}", shape, "float32", settings)

    def top_matrix(self, settings: Mapping[str, Any], shape: tuple[int, int]) -> StoredMatrix:
        """The strongest scores of parts of the training set, float64; settings as for `score_matrix`."""
        return self._matrix(f"tops/{_digest(settings)}", shape, "float64", settings)

    def stored_scores(self) -> list[dict[str, Any]]:
        """The settings of each way of scoring whose scores are computed."""
        names = (name for name in self._matrix_names("scores") if is_written(self._group, name))
        found = [self._group[name].attrs.asdict() for name in names]
        return [{name: value for name, value in settings.items() if name != CHECKSUM} for settings in found]

    def corrupt_scores(self) -> list[str]:
        """Names of stored scores that differ from the checksum taken when they were written."""
        return [name for name in self._matrix_names() if self._matrix(name).is_corrupt()]

    def delete_scores(self, names: Collection[str] | None = None) -> None:
        """Delete scores that no longer belong to the targets, by name, or all of them with their faithfulness."""
        with places.locked(self.store.location, places.SCORES), places.locked(self.store.location):
            if names is None:
                self._delete(_FAITHFULNESS)
                self._delete(_DAMPING)
            for name in self._matrix_names() if names is None else names:
                self._matrix(name).delete()

    def _delete(self, path: str) -> None:
        if checked(self._group, path) is not None:
            check_inside(self._group, path)
            del self._group[path]

    def _record(self, path: str) -> dict[str, Any]:
        found = checked(self._group, path)
        return {} if found is None else found.attrs.asdict()

    def _matrix_names(self, *kinds: str) -> list[str]:
        """Of all scores, and of the strongest ones of parts of the training set; or of one of these kinds."""
        names = ((kind, child_names(self._group, kind, zarr.Array)) for kind in kinds or ("scores", "tops"))
        return [f"{kind}/{name}" for kind, below in names for name in below]

    def _matrix(self, name: str, *options: Any) -> StoredMatrix:
        return open_matrix(self.store.location, self._group, name, *options)


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
