"""The store of retrained models: their outputs on the targets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from trak._utils.validation import check_count
from trak.evaluation.retraining.runs import TrainingRun
from trak.evaluation.retraining.training_spec import RunResult
from trak.store import ConfigMismatchError, StoreError
from trak.store.checks import UNREADABLE, checked
from trak.store.location import Location, display_name, locked, resolved
from trak.store.manifest import StoreManifest
from trak.store.opening import create_root, open_root
from trak.store.zarr_groups import is_written, subgroup, write_whole


@dataclass(frozen=True)
class RetrainingConfig(StoreManifest):
    """Everything that decides the outputs of a model besides its training examples and seed."""

    key, kind, format = "trak_retraining", "store of retrained models", 1
    made_by = "trak.evaluation.retrain"

    train_set_size: int
    num_targets: int
    targets_digest: str
    """Hash of the targets' data, in order."""
    task: Mapping[str, Any]
    """Name and settings."""
    config: Mapping[str, Any]
    """The user's description of training."""

    def __post_init__(self) -> None:
        check_count(self.train_set_size, "train_set_size")
        if not isinstance(self.config, Mapping):
            raise TypeError(
                f"config must be a mapping that describes training, got {type(self.config).__name__}; pass a dict, "
                "such as {'lr': 0.1}"
            )
        try:
            plain = json.loads(json.dumps(dict(self.config), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"config must hold strings, finite numbers, lists and dicts alone ({error}); convert what else there "
                "is to strings"
            ) from error
        object.__setattr__(self, "config", plain)


class ModelStore:
    """A zarr v3 group::

        models/<hash of examples and seed>   float64 (2, n_targets): outputs; 1 where right, 0 where wrong, NaN where
                                             the task can't tell. Attributes: run, seed, examples, seconds of training
        <name>/                              attributes alone: what a kind of experiment records of itself

    A model's array appears in one step, when it is done. Any number of processes may write.
    """

    def __init__(self, group: zarr.Group, where: Location, config: RetrainingConfig) -> None:
        """Use `create` or `open` instead."""
        self._group, self._location, self.config = group, resolved(where), config
        self.where = display_name(where)

    @classmethod
    def create(cls, where: Location, config: RetrainingConfig) -> "ModelStore":
        """The store at a location, created if there is none, ready to be written to.

        Raises:
            ConfigMismatchError: if it was created with another configuration.
            StoreError: if the location holds something else, or a damaged store.
            PermissionError: if the directory is not writable.
        """
        create_root(where, config)
        store = cls.open(where, "r+")
        store.config.check_same(config, store.where)
        with locked(where):
            subgroup(store._group, "models", {})
        return store

    @classmethod
    def open(cls, where: Location, mode: str = "r") -> "ModelStore":
        """The store at a location.

        Raises:
            FileNotFoundError: if there is none.
            StoreError: if it is damaged, or not a store of retrained models.
        """
        group, config = open_root(where, mode, RetrainingConfig)
        return cls(group, where, config)

    def is_done(self, key: str) -> bool:
        """Whether a model is there."""
        return is_written(self._group, f"models/{key}")

    def write(self, run: TrainingRun, found: RunResult) -> None:
        """Keep a model, unless another process has."""
        name = f"models/{run.key()}"
        with locked(self._location):
            if self.is_done(run.key()):
                return
            rows = np.stack([found.outputs, found.correct])
            attributes: dict[str, Any] = {"run": run.name, "seed": run.seed, "seconds": found.seconds}
            attributes["examples"] = len(run.indices)
            self._group.create_array(
                name, shape=rows.shape, chunks=rows.shape, dtype=rows.dtype, compressors=[Crc32cCodec()],
                attributes=attributes, overwrite=True,
            )  # fmt: skip
            write_whole(self._group, name, rows)

    def read(self, key: str) -> RunResult:
        """A model that is done."""
        name = f"models/{key}"
        try:
            array = checked(self._group, name)
            if not isinstance(array, zarr.Array):
                raise ValueError("it is no array")
            outputs, correct = np.asarray(array[:])
            return RunResult(outputs, correct, float(array.attrs["seconds"]))  # type: ignore[arg-type]
        except UNREADABLE as error:
            advice = "delete it and run the same script again"
            raise StoreError(f"{name} in {self.where} is damaged ({error}); {advice}") from error

    def notes(self, name: str) -> dict[str, Any]:
        """What a kind of experiment recorded; empty if nothing."""
        found = checked(self._group, name)
        return found.attrs.asdict() if isinstance(found, zarr.Group) else {}

    def record(self, name: str, fixed: Mapping[str, Any], current: Mapping[str, Any]) -> None:
        """Record what is `fixed` from the first time on, and what is the `current` state."""
        with locked(self._location):
            found = self.notes(name)
            for key, value in fixed.items():
                if found.get(key, value) != value:
                    raise ConfigMismatchError(
                        f"{self.where} was made with {key}={found[key]!r}, but {key}={value!r} was asked for; use what "
                        "it was made with, or another save_dir. Nothing stored was changed"
                    )
            if not found:
                self._group.create_group(name, attributes={**fixed, **current})
            elif found != {**fixed, **current}:
                self._group[name].update_attributes({**fixed, **current})
