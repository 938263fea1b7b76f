"""An experiment: one set of targets, featurized by each checkpoint, and their scores."""

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from trak.store import location as places
from trak.store.arrays import Rows, new_array, row_array
from trak.store.checks import StoreError, check_inside, checked
from trak.store.groups import array_names, is_written, model_ids, subgroup
from trak.store.table import Table
from trak.store.together import Pieces, SharedChunks, SharedFile

if TYPE_CHECKING:
    from trak.store.store import FeatureStore


_CHECKSUM = "crc32"
_READ_AT_ONCE = 1 << 24


def _crc(path: Path) -> int:
    """CRC-32 (ISO 3309) of a file."""
    found = 0
    with open(path, "rb") as file:
        while piece := file.read(_READ_AT_ONCE):
            found = zlib.crc32(piece, found)
    return found


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
        with places.locked(self.store._location):
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

    def corrupt_scores(self) -> list[str]:
        """Names of stored scores whose file differs from the checksum taken when it was written."""
        root = places.local_root(self.store._location)
        if root is None:
            return []
        names = array_names(self._group, "scores")
        files = {name: self._scores_file(root, f"scores/{name}") for name in names}
        expected = {name: self._group[f"scores/{name}"].attrs.get(_CHECKSUM) for name in names}
        there = [name for name in names if files[name].exists()]
        return [n for n in there if not files[n].is_file() or expected[n] not in (None, _crc(files[n]))]

    def forget_scores(self, some: Collection[str] | None = None) -> None:
        """Delete scores that no longer belong to the targets: all, or some by name."""
        root = places.local_root(self.store._location)
        with places.locked(self.store._location, places.SCORES), places.locked(self.store._location):
            for name in array_names(self._group, "scores") if some is None else some:
                check_inside(self._group, f"scores/{name}/c/0/0")
                if root is not None:
                    # Before the metadata: a kill in between must not leave scores that nothing forgets.
                    file = self._scores_file(root, f"scores/{name}")
                    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
                del self._group[f"scores/{name}"]

    def stored_scores(self) -> list[dict[str, Any]]:
        """The settings of each way of scoring whose scores are there."""
        names = (f"scores/{name}" for name in array_names(self._group, "scores"))
        found = [self._group[name].attrs.asdict() for name in names if is_written(self._group, name)]
        return [{name: value for name, value in settings.items() if name != _CHECKSUM} for settings in found]

    def _scores_file(self, root: Path, name: str) -> Path:
        return root / self._group.path / name / "c" / "0" / "0"

    def scores(self, settings: Mapping[str, Any], make: Callable[[], Pieces]) -> Rows:
        """The scores (n, num_targets) for one way of scoring, float32, computed if they are not there.

        A local store's are mapped read-only, and processes that want them at the same time share the work; any other's
        are read into memory.

        Args:
            settings: what decides the numbers besides features and targets.
            make: raises if they can't be computed, or returns the pieces that they are made of.
        """
        digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
        name, shape = f"scores/{digest}", (self.store.config.train_set_size, self.num_targets)
        root, what = places.local_root(self.store._location), f"{self._group.path}/{name}"
        with places.locked(self.store._location):
            subgroup(self._group, "scores", {})
        if root is None:
            chunks = SharedChunks(self._group, name, shape, "float32")
            if not chunks.is_complete():
                chunks.write(make(), self.store.claims, what, settings)
            return chunks.read()
        path = self._scores_file(root, name)
        if path.exists():
            return self._mapped_scores(name, path, shape)
        with places.locked(self.store._location):
            check_inside(self._group, f"{name}/c/0/0")
            new_array(self._group, name, shape, shape, "float32", attributes=dict(settings))
            array = checked(self._group, name)
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{name} of experiment {self.name!r} is no array")
        file = SharedFile(path, shape, "float32")
        try:
            with places.shared(self.store._location, places.SCORES, alone=file.forget):
                if not path.exists():
                    file.write(
                        make(), self.store.claims, what, lambda: places.locked(self.store._location),
                        lambda partial: array.update_attributes({_CHECKSUM: _crc(partial)}),
                    )  # fmt: skip
        except BaseException:
            with places.locked(self.store._location):
                places.remove_leftovers(self.store._location)
            raise
        return self._mapped_scores(name, path, shape)

    def _mapped_scores(self, name: str, path: Path, shape: tuple[int, int]) -> Rows:
        row_array(self._group, name).read_chunk(0)  # raises if the file is truncated
        return np.memmap(path, "float32", mode="r", shape=shape)
