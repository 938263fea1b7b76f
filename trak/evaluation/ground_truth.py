"""The ground truth that scores are compared with: models retrained on random subsets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trak._utils.typing import Array
from trak._utils.validation import as_indices, check_fraction
from trak.distributed import Ray
from trak.evaluation.retraining import ModelStore, Retrained, Retrainer, Train, TrainingRun, read_models, subset_runs
from trak.evaluation.validation import Indices, as_finite, as_mask
from trak.inputs.batches import Batch
from trak.store.location import Location
from trak.tasks import Task

_NAME = "ground_truth"


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Outputs of models trained on subsets of the training set, or a part of such; its arrays are read-only.

    `create` (or `trak.evaluation.retrain`, the same) trains the models, `open` reads what was made before; masks and
    outputs that come from elsewhere do as well.
    """

    masks: Array
    """Which examples each subset holds, bool (n_subsets, n_train)."""
    outputs: Array
    """Outputs f, float64 (n_subsets, n_seeds, n_targets)."""
    correct: Array | None = None
    """Whether the target was predicted right, bool of the same shape; None where that is not known."""
    seconds: Array | None = None
    """How long each model trained, in seconds, float64 (n_subsets, n_seeds); None where that is not known."""
    targets: Array = None  # type: ignore[assignment]
    """Which targets of the whole these are, int64 (n_targets,); by default all."""
    num_targets: int = 0
    """Number of targets of the whole."""
    targets_digest: str | None = None
    """A hash of the data of all of the whole's targets, in order; None if it is not known."""

    def __post_init__(self) -> None:
        masks, outputs = np.asarray(self.masks), as_finite(self.outputs, "outputs")
        if masks.dtype != bool:
            if not np.isin(masks, (0, 1)).all():
                raise ValueError(
                    f"masks must be boolean, or 0 and 1 (does each subset hold each example?), got {masks.dtype} with "
                    f"{masks[~np.isin(masks, (0, 1))][0]}; pass masks, not indices"
                )
            masks = masks.astype(bool)
        if masks.ndim != 2 or outputs.ndim != 3 or len(masks) != len(outputs) or 0 in (*masks.shape, *outputs.shape):
            raise ValueError(
                f"expected masks (n_subsets, n_train) and outputs (n_subsets, n_seeds, n_targets), got {masks.shape} "
                f"and {outputs.shape}; pass arrays of these shapes with as many subsets"
            )
        count = outputs.shape[2]
        targets = np.arange(count) if self.targets is None else np.asarray(self.targets)
        whole = self.num_targets or count
        if targets.shape != (count,) or not count <= whole or targets.max() >= whole:
            raise ValueError(
                f"expected targets to be {count} of 0 to {whole - 1}, got {targets}; give the number of each target "
                "of outputs, once"
            )
        values: dict[str, Any] = {"masks": masks, "outputs": outputs, "targets": targets}
        for name, dtype, shape in (("correct", bool, outputs.shape), ("seconds", np.float64, outputs.shape[:2])):
            value = getattr(self, name)
            values[name] = None if value is None else np.asarray(value, dtype)
            if value is not None and values[name].shape != shape:
                raise ValueError(
                    f"expected {name} of shape {shape}, got {values[name].shape}; leave it out if it is not known"
                )
        for name, value in values.items():
            if value is not None:
                value = value.view()
                value.flags.writeable = False
            object.__setattr__(self, name, value)
        object.__setattr__(self, "num_targets", int(whole))

    @classmethod
    def create(
        cls,
        train: Train,
        task: Task | str | Any,
        targets: Iterable[Batch],
        *,
        train_set_size: int,
        save_dir: Location,
        fraction: float = 0.5,
        subsets: int = 50,
        seeds: int = 2,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        jobs: int | None = None,
        backend: str | Ray = "loky",
        progress: bool = True,
    ) -> "GroundTruth":
        """Train models on random subsets and keep their outputs in `save_dir`.

        Larger `subsets` or `seeds` later on extend it: subset i depends on (seed, i, train_set_size, fraction) alone.

        Args:
            train, task, targets, train_set_size, save_dir, config, jobs, backend, progress: see `retrain_on`.
            fraction: of the training examples that each subset holds, rounded.
            subsets: number of random subsets. The LDS' interval shrinks with it, as with the targets.
            seeds: models for each subset; the noise ceiling needs two or more.
            seed: of the subsets and of the training seeds, which are all different.

        Raises:
            ValueError: if `save_dir` was made with another configuration, fraction or seed.
            RetrainingError, ValueError, TypeError, ImportError: see `retrain_on`.
        """
        runs = subset_runs(seed, train_set_size, fraction, subsets, seeds)
        retrainer = Retrainer(train, task, targets, train_set_size, save_dir, config, jobs, backend, progress)
        fixed, current = (
            {"fraction": float(fraction), "seed": int(seed)},
            {"subsets": int(subsets), "seeds": int(seeds)},
        )
        retrainer.store.record(_NAME, fixed, current)
        return cls._from_runs(runs, retrainer.run(runs), int(subsets), retrainer.store)

    @classmethod
    def open(cls, save_dir: Location, subsets: int | None = None, seeds: int | None = None) -> "GroundTruth":
        """What `create` kept in a directory.

        Args:
            save_dir: its location.
            subsets, seeds: how many of them; by default as many as the latest `create` was asked for.

        Raises:
            FileNotFoundError: if nothing is there.
            ValueError: if models are missing; says how many subsets are complete.
        """
        store = ModelStore.open(save_dir)
        noted, n = store.notes(_NAME), store.config.train_set_size
        if not noted:
            raise ValueError(f"{store.where} holds retrained models, but no ground truth; make one with retrain")
        subsets, seeds = noted["subsets"] if subsets is None else subsets, noted["seeds"] if seeds is None else seeds
        runs = subset_runs(noted["seed"], n, noted["fraction"], subsets, seeds)
        keys = [run.key() for run in runs]
        missing = [i for i, key in enumerate(keys) if not store.is_done(key)]
        if missing:
            complete = missing[0] // seeds
            raise ValueError(
                f"{len(missing)} of {len(keys)} models of {subsets} subsets × {seeds} seeds are missing in "
                f"{store.where}; call retrain again to go on"
                + (f", or open the first {complete} subsets, which are complete: subsets={complete}" * bool(complete))
            )
        return cls._from_runs(runs, read_models(store, keys), subsets, store)

    @classmethod
    def _from_runs(cls, runs: list[TrainingRun], found: Retrained, subsets: int, store: ModelStore) -> "GroundTruth":
        shape = subsets, len(runs) // subsets
        return cls(
            np.stack([as_mask(run.indices, store.config.train_set_size) for run in runs[:: shape[1]]]),
            found.outputs.reshape(*shape, -1),
            None if found.correct is None else found.correct.reshape(*shape, -1),
            found.seconds.reshape(shape),
            targets_digest=store.config.targets_digest,
        )

    def select(self, targets: Indices | None = None, subsets: Indices | None = None) -> "GroundTruth":
        """Some of its targets and subsets, by their position here; by default all.

        Raises:
            ValueError, TypeError: for indices that do not fit.
        """
        rows = as_indices(subsets, len(self.masks), "subsets")
        columns = as_indices(targets, len(self.targets), "targets")
        return replace(
            self,
            masks=self.masks[rows],
            outputs=self.outputs[rows][:, :, columns],
            correct=None if self.correct is None else self.correct[rows][:, :, columns],
            seconds=None if self.seconds is None else self.seconds[rows],
            targets=self.targets[columns],
        )

    def split(self, seed: int = 0, fraction: float = 0.5) -> tuple["GroundTruth", "GroundTruth"]:
        """Split at random into two parts that share no target and no subset: one to choose settings by, one to report.

        Args:
            seed: of the random split.
            fraction: of targets and of subsets that the first part gets, rounded.

        Raises:
            ValueError: if a part would get no target or no subset.
        """
        check_fraction(fraction, "fraction")
        rng = np.random.default_rng(seed)
        parts = []
        for size, what in ((len(self.targets), "target"), (len(self.masks), "subset")):
            first = round(fraction * size)
            if not 0 < first < size:
                raise ValueError(
                    f"can't split {size} {what}s at fraction {fraction}: each part needs one or more; choose another "
                    f"fraction, or have more {what}s"
                )
            order = rng.permutation(size)
            parts.append((np.sort(order[:first]), np.sort(order[first:])))
        (targets, other_targets), (subsets, other_subsets) = parts
        return self.select(targets, subsets), self.select(other_targets, other_subsets)

    def __repr__(self) -> str:
        subsets, seeds, targets = self.outputs.shape
        of = "" if targets == self.num_targets else f" of {self.num_targets}"
        sizes = self.masks.sum(1)
        size = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        return (
            f"GroundTruth({subsets} subsets of {size} of {self.masks.shape[1]} training examples × {seeds} seeds, "
            f"{targets}{of} targets)"
        )


retrain = GroundTruth.create
