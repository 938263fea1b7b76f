"""The feature store: every checkpoint's rows, and the experiments that query them."""

import re

from trak._utils.messages import suggest
from trak._utils.platform import is_portable_name
from trak.store import location as places
from trak.store.checkpoint_store import CheckpointStore
from trak.store.checks import ConfigMismatchError
from trak.store.experiment import Experiment
from trak.store.location import Location
from trak.store.manifest import StoreConfig
from trak.store.opening import create_root, open_root
from trak.store.zarr_groups import child_names, subgroup

_NAME = re.compile(r"(?!zarr\.json)[A-Za-z0-9_][A-Za-z0-9_. -]{0,199}")


class FeatureStore(CheckpointStore):
    """A zarr v3 group::

        checkpoints/<model id>/   features, done, output, ... (n rows), gram_...; attribute: fingerprint
        experiments/<name>/       attribute: num_targets
            targets/<model id>/   the same columns (num_targets rows)
            scores/<digest>       (n, num_targets) for one way of scoring

    Any process may be killed at any time: metadata and whole arrays appear in one step, rows count
    only once marked done, and a mapped array handed out is never written to again.
    """

    @classmethod
    def create(cls, where: Location, config: StoreConfig) -> "FeatureStore":
        """The store at a location, created if there is none, ready to be written to.

        Raises:
            ConfigMismatchError: if it was created with another configuration.
            StoreError: if the location holds something else, or a damaged store.
            PermissionError: if the directory is not writable.
        """
        create_root(where, config)
        store = open_store(where, writable=True)
        try:
            store.config.check_same(config, store.where)
        except ConfigMismatchError as error:
            if all(store.table(i).count_undone() == len(store.table(i)) for i in store.checkpoints()):
                raise ConfigMismatchError(f"{error}; or delete {store.where}, where no row is stored yet") from None
            raise
        return store

    def experiments(self) -> list[str]:
        """Names of the experiments, in order."""
        return child_names(self.group, "experiments")

    def experiment(self, name: str) -> Experiment:
        """An experiment.

        Raises:
            ValueError: if there is none of that name.
        """
        if name not in self.experiments():
            raise ValueError(f"unknown experiment {name!r} in {self.where}: {suggest(name, self.experiments())}")
        return Experiment(self, name)

    def add_experiment(self, name: str, num_targets: int) -> Experiment:
        """An experiment, created if it is new.

        Raises:
            ConfigMismatchError: if it was made for another number of targets.
            ValueError: if the name or the number is invalid.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"experiment name {name!r} can't be used; use letters, digits, '_', '-', '.' and spaces, at most 200, "
                "beginning with a letter, a digit or '_'"
            )
        if not is_portable_name(name):
            raise ValueError(
                f"experiment name {name!r} is not a valid file name on Windows; use one that is not a device such as "
                "CON or NUL and does not end in a dot or a space"
            )
        if isinstance(num_targets, bool) or not hasattr(num_targets, "__index__") or num_targets < 1:
            raise ValueError(
                f"num_targets must be a positive integer, got {num_targets!r}; give the number of targets, 1 or more"
            )
        with places.locked(self.location):
            group = subgroup(self.group, f"experiments/{name}", {"num_targets": int(num_targets)})
        if group.attrs.get("num_targets") != num_targets:
            raise ConfigMismatchError(
                f"experiment {name!r} in {self.where} has num_targets={group.attrs.get('num_targets')}, got "
                f"num_targets={num_targets}; use another name (exp_name=) for other targets"
            )
        return Experiment(self, name)


def open_store(where: Location, writable: bool = False) -> FeatureStore:
    """Open a store: a directory, a URL (s3://, gs://, memory://) or a zarr store.

    Args:
        where: its location.
        writable: whether scores may be added; otherwise nothing there is touched.

    Raises:
        FileNotFoundError: if there is none.
        StoreError: if it is damaged or not written by this library.
    """
    group, config = open_root(where, "r+" if writable else "r", StoreConfig)
    return FeatureStore(group, where, config)
