"""How far two attributions agree: of two methods, or of two seeds of one, which is its noise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trak._utils.plotting import axes, legend
from trak.evaluation.plots import draw_distribution, frame
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap, Interval, in_words, spearman
from trak.evaluation.validation import Scores, as_scores, finite, numbers_of_examples

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Agreement:
    """Of two attributions of the same targets to the same training examples."""

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
            f"({in_words(self.confidence)} {self.interval}), overlap of the top {self.k} {self.overlap:.3f} "
            f"({self.overlap_interval}; chance {self.k / self.train_set_size:.2g})"
        )

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each target: target, correlation, overlap.

        Raises:
            ImportError: if pandas is not installed.
        """
        targets = np.arange(len(self.correlations))
        return frame({"target": targets, "correlation": self.correlations, "overlap": self.overlaps})

    def plot(self, ax: Any = None) -> Any:
        """The distribution of the correlation over targets, with its mean and interval; returns the axes.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        title = f"Agreement (overlap of the top {self.k}: {self.overlap:.0%})"
        ax = axes(ax, "Spearman correlation of a target's scores", "number of targets", title)
        label = f"mean {self.correlation:.2f}, {in_words(self.confidence)}"
        draw_distribution(ax, self.correlations, self.correlation, self.interval, label)
        ax.axvline(0, color="black", linewidth=1, linestyle=":", label="chance")
        legend(ax)
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
    (k,) = numbers_of_examples(min(10, n) if k is None else k, n)
    correlations, overlaps = np.empty(targets), np.empty(targets)
    for t in range(targets):
        x, y = finite(first[:, t], f"a of target {t}"), finite(second[:, t], f"b of target {t}")
        correlations[t] = spearman(x, y)
        x_top, y_top = (np.argsort(-values, kind="stable")[:k] for values in (x, y))
        overlaps[t] = len(np.intersect1d(x_top, y_top)) / k
    bootstrap = Bootstrap(resamples, confidence, seed)
    of_correlation, of_overlap = bootstrap.of_means(np.stack([correlations, overlaps])).tolist()
    return Agreement(
        correlations=correlations,
        overlaps=overlaps,
        k=k,
        train_set_size=n,
        interval=Interval(*of_correlation),
        overlap_interval=Interval(*of_overlap),
        confidence=bootstrap.confidence,
    )
