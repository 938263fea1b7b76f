"""The ground truth that scores are compared with: models retrained on random subsets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trak._utils.validation import check_indices, is_number
from trak.distributed import Ray
from trak.evaluation.retraining import ModelStore, Retrained, Retrainer, Train, TrainingRun, stored, subset_runs
from trak.evaluation.validation import Choice, count, finite
from trak.inputs.batches import Batch
from trak.store.location import Location
from trak.tasks import Task

Array = np.ndarray[Any, Any]

_NAME = "ground_truth"


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Outputs of models trained on subsets of the training set, or a part of such; its arrays can't be written to.

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
        masks, outputs = np.asarray(self.masks), finite(self.outputs, "outputs")
        if masks.dtype != bool:
            if not np.isin(masks, (0, 1)).all():
                raise ValueError(
                    f"masks must be boolean, or 0 and 1 (does each subset hold each example?), got {masks.dtype} with "
                    f"{masks[~np.isin(masks, (0, 1))][0]}; pass masks, no indices"
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
            object.__setattr__(self, name, _frozen(value))
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
            train, task, targets, train_set_size, save_dir, config, jobs, backend, progress: as of `retrain_on`.
            fraction: of the training examples that each subset holds, rounded.
            subsets: number of random subsets. The LDS' interval shrinks with it, as with the targets.
            seeds: models for each subset; the noise ceiling needs two or more.
            seed: of the subsets and of the training seeds, which are all different.

        Raises:
            ValueError: if `save_dir` was made with another configuration, fraction or seed.
            RetrainingError, ValueError, TypeError, ImportError: as of `retrain_on`.
        """
        runs = _runs(seed, train_set_size, fraction, subsets, seeds)
        retrainer = Retrainer(
            train, task, targets, train_set_size=train_set_size, save_dir=save_dir, config=config, jobs=jobs,
            backend=backend, progress=progress,
        )  # fmt: skip
        retrainer.store.record(
            _NAME,
            fixed={"fraction": float(fraction), "seed": int(seed)},
            current={"subsets": int(subsets), "seeds": int(seeds)},
        )
        return cls._of(runs, retrainer.run(runs), int(subsets), retrainer.store)

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
        runs = _runs(noted["seed"], n, noted["fraction"], subsets, seeds)
        keys = [run.key() for run in runs]
        missing = [i for i, key in enumerate(keys) if not store.is_done(key)]
        if missing:
            complete = missing[0] // seeds
            raise ValueError(
                f"{len(missing)} of {len(keys)} models of {subsets} subsets × {seeds} seeds are missing in "
                f"{store.where}; call retrain again to go on"
                + (f", or open the first {complete} subsets, which are complete: subsets={complete}" * bool(complete))
            )
        return cls._of(runs, stored(store, keys), subsets, store)

    @classmethod
    def _of(cls, runs: list[TrainingRun], found: Retrained, subsets: int, store: ModelStore) -> "GroundTruth":
        shape = subsets, len(runs) // subsets
        masks = np.zeros((subsets, store.config.train_set_size), bool)
        for mask, run in zip(masks, runs[:: shape[1]], strict=True):
            mask[run.indices] = True
        return cls(
            masks,
            found.outputs.reshape(*shape, -1),
            None if found.correct is None else found.correct.reshape(*shape, -1),
            found.seconds.reshape(shape),
            targets_digest=store.config.targets_digest,
        )

    def select(self, targets: Choice | None = None, subsets: Choice | None = None) -> "GroundTruth":
        """Some of its targets and subsets, by their position here; by default all.

        Raises:
            ValueError, TypeError: for what is no choice of them.
        """
        rows = check_indices(subsets, len(self.masks), "subsets")
        columns = check_indices(targets, len(self.targets), "targets")
        return GroundTruth(
            masks=self.masks[rows],
            outputs=self.outputs[rows][:, :, columns],
            correct=None if self.correct is None else self.correct[rows][:, :, columns],
            seconds=None if self.seconds is None else self.seconds[rows],
            targets=self.targets[columns],
            num_targets=self.num_targets,
            targets_digest=self.targets_digest,
        )

    def split(self, seed: int = 0, fraction: float = 0.5) -> tuple["GroundTruth", "GroundTruth"]:
        """Two parts that share no target and no subset: one to choose by (a method, its damping, k), one to report.

        Args:
            seed: of the random split.
            fraction: of targets and of subsets that the first part gets, rounded.

        Raises:
            ValueError: if a part would get no target or no subset.
        """
        if not is_number(fraction) or not 0 < fraction < 1:
            raise ValueError(f"fraction must be between 0 and 1, got {fraction!r}; use 0.5 for halves")
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


def _frozen(value: Array | None) -> Array | None:
    """A view that can't be written to."""
    if value is None:
        return None
    view = value.view()
    view.flags.writeable = False
    return view


def _runs(seed: int, train_set_size: int, fraction: float, subsets: int, seeds: int) -> list[TrainingRun]:
    return subset_runs(
        count(seed, "seed", least=0),
        count(train_set_size, "train_set_size"),
        fraction,
        count(subsets, "subsets"),
        count(seeds, "seeds"),
    )


retrain = GroundTruth.create
