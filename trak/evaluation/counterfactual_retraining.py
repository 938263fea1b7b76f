"""Counterfactuals: remove the examples that a method calls most helpful, retrain, and measure the target again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from trak._utils.plotting import CHANCE, CROWDED, axes, styles
from trak._utils.typing import Array
from trak._utils.validation import as_indices, check_count, check_option
from trak.distributed import Ray
from trak.evaluation.ranking import top_indices
from trak.evaluation.result import DataFrame, Result, draw_curve, frame, with_interval
from trak.evaluation.retraining import Retrainer, Train, random_subset, runs_without
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap, Interval, interval_label
from trak.evaluation.validation import Indices, Scores, as_finite, as_scores, check_ks
from trak.inputs.batches import Batch
from trak.store.location import Location
from trak.tasks import Task

RANDOM_REMOVAL = "random"
"""Name of the removal of random examples among the methods."""


@dataclass(frozen=True, eq=False)
class Counterfactuals(Result):
    """What becomes of targets when their top-k training examples are removed, and k random ones.

    The table has a row for each method and k: method, k, drop, drop_low, drop_high, and flipped, flipped_low,
    flipped_high if the task tells right from wrong. The figure shows brittleness curves.
    """

    methods: tuple[str, ...]
    """The last is "random"."""
    k: tuple[int, ...]
    """Numbers of training examples removed."""
    targets: Array
    """Which targets these are, int64 (n_targets,)."""
    drops: Array
    """By how much the mean output of models trained on everything exceeds that of models trained without the k
    examples, in units of f, float64 (methods, k, n_targets). For random removal the mean over random sets."""
    flips: Array | None
    """Whether a prediction that was right is wrong then, 0 or 1 (between for random removal: the share of random sets),
    NaN for a target that was wrong before: float64 of the same shape. None if the task does not tell."""
    drop_intervals: Array
    """Of the mean drop over targets, (methods, k, 2)."""
    flip_intervals: Array | None
    """Of the share of right targets that flip, (methods, k, 2)."""
    confidence: float
    seeds: int

    @property
    def mean_drops(self) -> Array:
        """Over targets, (methods, k)."""
        return self.drops.mean(axis=-1)

    @property
    def flip_shares(self) -> Array | None:
        """Share of the targets predicted right before that are wrong then, (methods, k); NaN if none was right."""
        if self.flips is None:
            return None
        known = _of_correct(self.flips)
        return known.mean(axis=-1) if known.size else np.full(known.shape[:-1], np.nan)

    def __str__(self) -> str:
        parts, shares = [], self.flip_shares
        for i, method in enumerate(self.methods):
            flips = "" if shares is None else f", {shares[i, -1]:.0%} flip"
            interval = Interval(*self.drop_intervals[i, -1].tolist())
            parts.append(f"{method} {self.mean_drops[i, -1]:.3f} ({interval}){flips}")
        return (
            f"Drop of the output without the top {self.k[-1]} (mean of {len(self.targets)} targets, {self.seeds} "
            f"seeds, {interval_label(self.confidence)}): " + "; ".join(parts)
        )

    def _columns(self) -> Mapping[str, Any]:
        columns = {"method": np.repeat(self.methods, len(self.k)), "k": np.tile(self.k, len(self.methods))}
        columns |= with_interval("drop", self.mean_drops, self.drop_intervals)
        if self.flip_shares is not None and self.flip_intervals is not None:
            columns |= with_interval("flipped", self.flip_shares, self.flip_intervals)
        return columns

    def paired_differences(self, method: str) -> DataFrame:
        """By how much a method's drops exceed each other method's on the same targets: a row for each other method and
        k, with columns other, k, difference (mean over targets, in units of f), difference_low, difference_high.

        Targets differ more than methods do, so the interval of the difference is narrower than those of the drops.

        Raises:
            ValueError: for an unknown method.
            ImportError: if pandas is not installed.
        """
        check_option(method, "method", self.methods)
        others = [i for i, other in enumerate(self.methods) if other != method]
        differences = self.drops[self.methods.index(method)] - self.drops[others]
        intervals = Bootstrap(confidence=self.confidence).mean_intervals(differences)
        columns = {"other": np.repeat(np.array(self.methods)[others], len(self.k)), "k": np.tile(self.k, len(others))}
        return frame(columns | with_interval("difference", differences.mean(axis=-1), intervals))

    def plot(self, ax: Any = None, what: str | None = None) -> Any:
        """Draw "flips" or "drops" by the number of examples removed; returns the axes.

        Args:
            ax: matplotlib axes to draw on; by default those of a new figure.
            what: "flips", the default if the task tells right from wrong, or "drops".

        Raises:
            ValueError: for something else, or flips that are not known.
            ImportError: if matplotlib is not installed.
        """
        if what == "drops":
            return replace(self, flips=None, flip_intervals=None).plot(ax)
        if what not in (None, "flips") or (what and self.flips is None):
            raise ValueError(
                f"what must be 'drops', or 'flips' if the task tells right from wrong, got {what!r}; use one of them"
            )
        return super().plot(ax)

    def _draw(self, ax: Any) -> Any:
        if self.flips is None:
            ylabel, title = "drop of the target's output f (units of f)", "Counterfactual effect"
            values, intervals = self.mean_drops, self.drop_intervals
        else:
            ylabel, title = "right predictions that flip (%)", "Brittleness"
            values, intervals = 100 * np.asarray(self.flip_shares), 100 * np.asarray(self.flip_intervals)
        ax = axes(ax, "training examples removed (k)", ylabel, f"{title}, {interval_label(self.confidence)}s")
        crowded = len(self.methods) > CROWDED
        for i, (method, style) in enumerate(zip(self.methods, styles(), strict=False)):
            # Bars of neighbours beside each other.
            x = np.array(self.k) + 0.01 * self.k[-1] * (i - len(self.methods) // 2) * crowded
            style = CHANCE if method == RANDOM_REMOVAL else style
            draw_curve(ax, x, values[i], intervals[i], method, style, bars=crowded)
        ax.axhline(0, color="black", linewidth=0.8)
        return ax


def _of_correct(flips: Array) -> Array:
    """The flips of the targets that were predicted right before."""
    return flips[..., ~np.isnan(flips[0, 0])]


def counterfactuals(
    methods: Mapping[str, Scores],
    train: Train,
    task: Task | str | Any,
    targets: Iterable[Batch],
    *,
    train_set_size: int,
    save_dir: Location,
    k: Sequence[int],
    target_indices: Indices | None = None,
    seeds: int = 5,
    random_sets: int = 3,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    backend: str | Ray = "loky",
    progress: bool = True,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Counterfactuals:
    """Remove each target's top-k training examples by each method, retrain, and compare with models trained on
    everything (data counterfactuals and brittleness: Ilyas et al., 2022).

    `seeds` · (1 + methods · k's · targets + k's · random_sets) models are trained, less those that `save_dir` has. A
    ground truth made with the same configuration may live in the same `save_dir`.

    Args:
        methods: scores (n_train, n_targets), or anything with such `.scores`, by name. Of equal scores the first count
            as higher.
        train, task, targets, train_set_size, save_dir, config, jobs, backend, progress: see `retrain_on`.
        k: numbers of examples to remove.
        target_indices: the targets to look at, by default all; each costs models of its own.
        seeds: models trained on each set. A target is predicted right if more than half of them predict it right.
        random_sets: random sets of each size k to compare with, shared by all targets.
        seed: of random sets, training and intervals.
        confidence: of the intervals: percentiles of the bootstrap over targets, two-sided.
        resamples: of the bootstrap.

    Raises:
        ValueError, TypeError: for invalid arguments; NaN among the scores of these targets.
        RetrainingError, ImportError: see `retrain_on`.
    """
    if not isinstance(methods, Mapping) or not methods or RANDOM_REMOVAL in methods:
        raise ValueError(
            f"methods must be scores by name, one or more, none called {RANDOM_REMOVAL!r}, got {methods!r:.80}; pass a "
            "dict, such as {'trak': scores}"
        )
    ks = check_ks(k, check_count(train_set_size, "train_set_size", least=2) - 1)
    seeds, random_sets = check_count(seeds, "seeds"), check_count(random_sets, "random_sets")
    bootstrap = Bootstrap(resamples, confidence, seed)
    retrainer = Retrainer(train, task, targets, train_set_size, save_dir, config, jobs, backend, progress)
    num_targets = retrainer.store.config.num_targets
    columns = as_indices(target_indices, num_targets, "target_indices")
    orders: dict[str, Array] = {}
    expected = train_set_size, num_targets
    for name, given in methods.items():
        scores = as_scores(given, f"the scores of {name!r}")
        if scores.shape != expected:
            raise ValueError(
                f"expected scores (n_train, n_targets) of shape {expected} from {name!r}, got {scores.shape}; pass "
                "scores of the same examples for the same targets"
            )
        orders[str(name)] = top_indices(as_finite(scores[:, columns], f"the scores of {name!r}"))
    sets = [("everything", np.empty(0, np.int64))]
    for (name, order), size in product(orders.items(), ks):
        sets += [
            (f"all but the top {size} of target {target} by {name}", order[:size, j])
            for j, target in enumerate(columns.tolist())
        ]
    for size, i in product(ks, range(random_sets)):
        removed = random_subset(seed, i, train_set_size, size / train_set_size)
        sets.append((f"all but {size} random ones, number {i}", removed))
    found = retrainer.run(runs_without(sets, train_set_size, seeds, seed))
    shape = len(methods), len(ks), len(columns)

    def before_and_after(values: Array) -> tuple[Array, Array]:
        """Values (targets,) of models trained on everything, and (methods + 1, k, targets) of those after removal."""
        first, own, random = np.split(values, [1, 1 + np.prod(shape)])
        own = np.diagonal(own.reshape(*shape, shape[-1]), axis1=-2, axis2=-1)
        random = random.reshape(shape[1], random_sets, shape[2]).mean(axis=1)
        return first[0], np.concatenate([own, random[None]])

    before, after = before_and_after(found.outputs[:, columns].reshape(len(sets), seeds, -1).mean(axis=1))
    drops, flips = before - after, None
    if found.correct is not None:
        right = found.correct[:, columns].reshape(len(sets), seeds, -1).mean(axis=1) > 0.5
        right_before, right_after = before_and_after(right)
        flips = np.where(right_before, 1 - right_after, np.nan)
    names, of_drops = (*orders, RANDOM_REMOVAL), bootstrap.mean_intervals(drops)
    of_flips = None if flips is None else bootstrap.mean_intervals(_of_correct(flips))
    return Counterfactuals(names, tuple(ks), columns, drops, flips, of_drops, of_flips, bootstrap.confidence, seeds)
