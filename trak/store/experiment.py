"""An experiment: one set of targets, featurized by each checkpoint, and their scores."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from trak.store import location as places
from trak.store.checks import StoreError, check_inside, checked
from trak.store.row_array import Rows
from trak.store.score_matrix import CHECKSUM, LocalMatrix, RemoteMatrix, Tiles, open_matrix
from trak.store.table import Table
from trak.store.zarr_groups import array_names, is_written, model_ids, subgroup

if TYPE_CHECKING:
    from trak.store.feature_store import FeatureStore


KINDS = ("scores", "tops")
"""What is computed of targets: all scores, and the strongest of parts of the training set."""

MEASURED = "faithfulness"
"""How faithful scores were found to be."""
SCORING, DAMPING = "scoring", "damping"
"""The recorded scoring settings, and the damping that "auto" chose."""


class Experiment:
    """Targets, featurized by each checkpoint, and their scores."""

    def __init__(self, store: "FeatureStore", name: str) -> None:
        self.store, self.name = store, name
        group = checked(store._group, f"experiments/{name}")
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
        """The table of the targets' rows for one checkpoint, made if it is new; rows of a checkpoint that was deleted
        and made again with other weights are dropped."""
        path = f"targets/{model_id}"
        fingerprint = self.store.fingerprint(model_id)
        with places.locked(self.store.location):
            found = checked(self._group, path)
            if found is not None and found.attrs.get("fingerprint") != fingerprint:
                check_inside(self._group, path)
                del self._group[path]
            group = subgroup(self._group, path, {"fingerprint": fingerprint})
            return Table.create(group, *self.store._layout(self.num_targets))

    def targets(self, model_id: int) -> Table:
        """The table of the targets' rows for one checkpoint.

        Raises:
            ValueError: if there is none.
        """
        group = checked(self._group, f"targets/{model_id}")
        if not isinstance(group, zarr.Group):
            raise ValueError(
                f"experiment {self.name!r} has no targets featurized by model_id {model_id}, only by "
                f"{self.checkpoints() or 'none'}; call start_scoring_checkpoint and score for it, or finalize with "
                "model_ids or allow_skip=True"
            )
        if group.attrs.get("fingerprint") != self.store.fingerprint(model_id):
            raise ValueError(
                f"the targets of experiment {self.name!r} were featurized with other weights than model_id {model_id} "
                "has now; call start_scoring_checkpoint and score for it again"
            )
        return Table(group, *self.store._layout(self.num_targets))

    def measured(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What `keep_measured` was given for these settings; empty if nothing."""
        found = checked(self._group, f"{MEASURED}/{_digest(settings)}")
        return {} if found is None else found.attrs.asdict()

    def keep_measured(self, settings: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Remember what was measured of the scores for one way of scoring, in place of what was before.

        Args:
            settings: what decides the scores, as of `scores`.
            record: ready for JSON.
        """
        path = f"{MEASURED}/{_digest(settings)}"
        with places.locked(self.store.location):
            self._forget(path)
            subgroup(self._group, path, record)

    def scoring(self) -> dict[str, Any]:
        """What `record_scoring` was given last; empty if nothing.

        Raises:
            StoreError: if the record is damaged.
        """
        found = checked(self._group, SCORING)
        record = {} if found is None else found.attrs.asdict()
        ids = record.get("model_ids", [])
        if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
            raise StoreError(
                f"experiment {self.name!r} in {self.store.where} has model_ids={ids!r} in its scoring settings. Delete "
                "its folder scoring."
            )
        return record

    def record_scoring(self, record: Mapping[str, Any]) -> None:
        """Keep the settings and checkpoints that the experiment is scored with, in place of those before."""
        with places.locked(self.store.location):
            group = subgroup(self._group, SCORING, record)
            if group.attrs.asdict() != dict(record):
                group.attrs.put(dict(record))

    def damping(self, decided_by: Mapping[str, Any]) -> dict[str, Any]:
        """What `record_damping` was given first for what decides it; empty if nothing."""
        found = checked(self._group, f"{DAMPING}/{_digest(decided_by)}")
        return {} if found is None else found.attrs.asdict()

    def record_damping(self, decided_by: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a chosen damping unless one is kept already, and return the one that is kept."""
        with places.locked(self.store.location):
            return subgroup(self._group, f"{DAMPING}/{_digest(decided_by)}", record).attrs.asdict()

    def _forget(self, path: str) -> None:
        if checked(self._group, path) is not None:
            check_inside(self._group, path)
            del self._group[path]

    def corrupt_scores(self) -> list[str]:
        """Names of stored scores that differ from the checksum taken when they were written."""
        return [name for name in self._computed_names() if self._matrix(name, (0, 0), "float32").is_corrupt()]

    def forget_scores(self, some: Collection[str] | None = None) -> None:
        """Delete scores that no longer belong to the targets, and what was measured of them: all, or some by name."""
        with places.locked(self.store.location, places.SCORES), places.locked(self.store.location):
            if some is None:
                self._forget(MEASURED)
                self._forget(DAMPING)
            for name in self._computed_names() if some is None else some:
                check_inside(self._group, f"{name}/c/0/0")
                self._matrix(name, (0, 0), "float32").delete()
                del self._group[name]

    def stored_scores(self) -> list[dict[str, Any]]:
        """The settings of each way of scoring whose scores are there."""
        names = (f"scores/{name}" for name in array_names(self._group, "scores"))
        found = [self._group[name].attrs.asdict() for name in names if is_written(self._group, name)]
        return [{name: value for name, value in settings.items() if name != CHECKSUM} for settings in found]

    def scores(
        self,
        settings: Mapping[str, Any],
        make: Callable[[], Tiles],
        help_with: Callable[[int], object] | None = None,
        only: Iterable[int] | None = None,
    ) -> Rows:
        """The scores (n, num_targets) for one way of scoring, float32, computed if they are not there.

        Args:
            settings: what decides the numbers besides features and targets.
            make: raises if they can't be computed, or returns the pieces that they are made of.
            help_with, only: see `computed`.
        """
        shape = self.store.config.train_set_size, self.num_targets
        return self.computed("scores", settings, shape, "float32", make, help_with, only)

    def computed(
        self,
        kind: str,
        settings: Mapping[str, Any],
        shape: tuple[int, int],
        dtype: str,
        make: Callable[[], Tiles],
        help_with: Callable[[int], object] | None = None,
        only: Iterable[int] | None = None,
    ) -> Rows:
        """A matrix of one of `KINDS`, computed if it is not there; empty if `only` some pieces of it were asked for.

        A local store's are mapped read-only, any other's read into memory. Processes that want the same at the same
        time share the work; `help_with` and `only` are of `LocalMatrix.write`.
        """
        matrix = self._matrix(f"{kind}/{_digest(settings)}", shape, dtype)
        if not matrix.is_complete():
            with places.locked(self.store.location):
                subgroup(self._group, kind, {})
            matrix.write(make, self.store.locks, settings, help_with, only)
        return np.empty((0, 0), dtype) if only is not None else matrix.read()

    def _computed_names(self) -> list[str]:
        return [f"{kind}/{name}" for kind in KINDS for name in array_names(self._group, kind)]

    def _matrix(self, name: str, shape: tuple[int, int], dtype: str) -> LocalMatrix | RemoteMatrix:
        return open_matrix(self.store.location, self._group, name, shape, dtype)


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
