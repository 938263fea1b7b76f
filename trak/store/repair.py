"""Repair a damaged store: corrupt rows are marked as not done, for the script to compute again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from trak.store.checkpoint_store import GRAMS
from trak.store.checks import StoreError
from trak.store.feature_store import FeatureStore, open_store
from trak.store.location import Location, locked, remove_leftovers
from trak.store.table import Table


@dataclass(frozen=True)
class Finding:
    """A damaged part of a store."""

    where: str
    """Path inside the store."""
    what: str
    repaired: bool
    """Whether running the same script again is enough now."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def repair(where: Location) -> list[Finding]:
    """Compare all rows, Gram matrices and scores with their checksums, and mark as not done what differs.

    Corrupt rows, those of truncated chunks among them, are marked as not done; damaged Gram matrices and scores are
    deleted, and with rows what was computed from them: a checkpoint's Gram matrices and the scores. The script that
    made the store then computes what is missing and nothing else. Damaged metadata of arrays is named and left alone.

    Raises:
        FileNotFoundError: if there is no store.
        StoreError: if the metadata of the store, a checkpoint or an experiment can't be read; nothing is changed then.
        PermissionError: if it can't be written to.
    """
    store = open_store(where, writable=True)
    with locked(where):
        remove_leftovers(where)
    return _Repair(store).found


class _Repair:
    def __init__(self, store: FeatureStore) -> None:
        self.found: list[Finding] = []
        self._store = store
        model_ids, names = store.checkpoints(), store.experiments()
        changed = [self._checkpoint(model_id) for model_id in model_ids]
        for name in names:
            with self._recorded(f"experiments/{name}"):
                self._experiment(name, any(changed))

    @contextmanager
    def _recorded(self, where: str) -> Iterator[None]:
        """While entered, an error is recorded as a finding."""
        try:
            yield
        except ValueError as error:
            self.found.append(Finding(where, f"{error}; or delete {where} and run the same script again", False))

    def _table(self, where: str, find: Callable[[], Table], finalized: bool = False) -> int:
        """The number of rows to compute again; those that are not done count where all of them should be."""
        with self._recorded(where):
            table = find()
            corrupt = table.repair()
            lost = table.count_undone() - corrupt if finalized else 0
            for rows, what in ((corrupt, "corrupt rows, marked as not done"), (lost, "lost rows")):
                if rows:
                    self.found.append(Finding(where, f"{rows} {what}", True))
            return corrupt + lost
        return 0

    def _checkpoint(self, model_id: int) -> bool:
        """Whether anything changed that scores depend on."""
        where, finalized, changed = f"checkpoints/{model_id}", False, False
        for name in GRAMS:
            weighting = name.removeprefix("gram_")
            try:
                if self._store.is_finalized(model_id, weighting):
                    self._store.gram(model_id, weighting)
                    finalized = True
            except StoreError:
                self.found.append(Finding(f"{where}/{name}", "corrupt, deleted", True))
                changed = True
        changed |= self._table(where, partial(self._store.table, model_id), finalized) > 0
        if changed:
            self._store.delete_grams(model_id)
        return changed

    def _experiment(self, name: str, changed: bool) -> None:
        experiment, where = self._store.experiment(name), f"experiments/{name}"
        ids = experiment.checkpoints()
        rows = sum(self._table(f"{where}/targets/{i}", partial(experiment.targets, i)) for i in ids)
        corrupt = experiment.corrupt_scores()
        self.found += [Finding(f"{where}/{scores}", "corrupt, deleted", True) for scores in corrupt]
        if (rows or changed) and experiment.stored_scores():
            self.found.append(Finding(f"{where}/scores", "deleted with what they were computed from", True))
        experiment.delete_scores(None if rows or changed else corrupt)
