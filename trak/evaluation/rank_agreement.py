"""How far two attributions agree: of two methods, or of two seeds of one, which is its noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trak._utils.plotting import axes
from trak._utils.typing import Array
from trak.evaluation.ranking import top_indices
from trak.evaluation.result import Result, draw_distribution
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap, Interval, interval_label, spearman
from trak.evaluation.validation import Scores, as_finite, as_scores, check_k


@dataclass(frozen=True, eq=False)
class Agreement(Result):
    """Agreement of two attributions of the same targets to the same training examples.

    The table has a row for each target: target, correlation, overlap. The figure is the distribution of the correlation
    over targets, with its mean and interval.
    """

    correlations: Array
    """Spearman correlation of each target's scores over training examples, (n_targets,); 0 for constant scores."""
    overlaps: Array
    """Share of each target's k highest in one that are among the k highest in the other, (n_targets,)."""
    k: int
    train_set_size: int
    interval: Interval
    """Of the mean correlation, over targets."""
    overlap_interval: Interval
    """Of the mean overlap, over targets."""
    confidence: float

    @property
    def correlation(self) -> float:
        """Mean over targets."""
        return float(self.correlations.mean())

    @property
    def overlap(self) -> float:
        """Mean over targets; k / n_train is chance."""
        return float(self.overlaps.mean())

    def __str__(self) -> str:
        return (
            f"Agreement over {len(self.correlations)} targets: Spearman {self.correlation:.3f} "
            f"({interval_label(self.confidence)} {self.interval}), overlap of the top {self.k} {self.overlap:.3f} "
            f"({self.overlap_interval}; chance {self.k / self.train_set_size:.2g})"
        )

    def _columns(self) -> Mapping[str, Any]:
        targets = np.arange(len(self.correlations))
        return {"target": targets, "correlation": self.correlations, "overlap": self.overlaps}

    def _draw(self, ax: Any) -> Any:
        title = f"Agreement (overlap of the top {self.k}: {self.overlap:.0%})"
        ax = axes(ax, "Spearman correlation of a target's scores", "number of targets", title)
        draw_distribution(ax, self.correlations, self.correlation, self.interval, self.confidence)
        return ax


def agreement(
    a: Scores,
    b: Scores,
    k: int | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Compare two attributions target by target.

    Args:
        a, b: scores (n_train, n_targets), or anything with such `.scores`. Of equal scores the first count as higher.
        k: how many of the highest scores to compare; by default 10, or n_train if that is less.
        confidence: of the intervals: percentiles of the bootstrap over targets, two-sided.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: for shapes that differ, or NaN.
        ImportError: if scipy is not installed.
    """
    first, second = as_scores(a, "a"), as_scores(b, "b")
    if first.shape != second.shape:
        raise ValueError(
            f"a and b must have one shape (n_train, n_targets), got {first.shape} and {second.shape}; give scores of "
            "the same examples for the same targets"
        )
    n, targets = first.shape
    k = check_k(k, n)
    values = correlations, overlaps = np.empty((2, targets))
    for t in range(targets):
        x, y = as_finite(first[:, t], f"a of target {t}"), as_finite(second[:, t], f"b of target {t}")
        correlations[t] = spearman(x, y)
        overlaps[t] = len(np.intersect1d(top_indices(x, k), top_indices(y, k))) / k
    bootstrap = Bootstrap(resamples, confidence, seed)
    of_correlation, of_overlap = (Interval(*ends) for ends in bootstrap.mean_intervals(values).tolist())
    return Agreement(correlations, overlaps, k, n, of_correlation, of_overlap, bootstrap.confidence)
