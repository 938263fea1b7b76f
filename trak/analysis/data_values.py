"""Which training examples are valuable over a validation set, and which useless or harmful?"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from trak._utils.plotting import CHANCE, STYLES, axes, legend
from trak._utils.validation import is_number
from trak.analysis.validation import Slice, chosen, listed, row_blocks, strongest
from trak.evaluation.plots import frame
from trak.evaluation.statistics import CONFIDENCE
from trak.evaluation.validation import Scores, as_scores, count

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class DataValues:
    """What each training example does to the mean output of the validation targets."""

    mean: Array
    """Mean of its scores over targets, in units of f: positive helps; float64 (n_train,)."""
    standard_error: Array
    """Of that mean, over targets: how much it would change with other targets of the same kind; NaN for one target."""
    targets: int
    """Number of targets."""

    def ranking(self) -> Array:
        """All training examples, the most valuable first; int64 (n_train,)."""
        return strongest(self.mean, len(self.mean))

    def keep(self, share: float) -> Array:
        """The most valuable share of the training examples, rounded, one at least: their indices in growing order.

        Raises:
            ValueError: if `share` is not between 0 and 1.
        """
        if not is_number(share) or not 0 < share <= 1:
            raise ValueError(
                f"share must be above 0 and at most 1, got {share!r}; use 0.9 to keep nine of ten examples"
            )
        return np.sort(self.ranking()[: max(1, round(share * len(self.mean)))])

    def helpful(self, confidence: float = CONFIDENCE) -> Array:
        """Training examples whose value is above 0 at this two-sided confidence, each by itself: indices in growing
        order. Of many examples without value, (1 - confidence) / 2 are among them by chance.

        Raises:
            ValueError: if `confidence` is not between 0 and 1, or there is one target alone.
        """
        return np.flatnonzero(self.mean > self._margin(confidence))

    def harmful(self, confidence: float = CONFIDENCE) -> Array:
        """Training examples whose value is below 0, likewise."""
        return np.flatnonzero(self.mean < -self._margin(confidence))

    def _margin(self, confidence: float) -> Array:
        if not is_number(confidence) or not 0 < confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}; use 0.95")
        if self.targets < 2:
            raise ValueError(
                f"{self.targets} target tells nothing of how certain a mean over targets is; give two or more"
            )
        return NormalDist().inv_cdf(0.5 + confidence / 2) * self.standard_error

    def __str__(self) -> str:
        order = self.ranking()
        first, last = order[:_SHOWN], order[::-1][:_SHOWN]
        sure = ""
        if self.targets > 1:
            above, below = len(self.helpful()), len(self.harmful())
            sure = f"; {above} above 0 and {below} below by their 95 % intervals"
        return (
            f"Value of {len(order)} training examples over {self.targets} targets: highest "
            f"{listed(first, self.mean[first])}; lowest {listed(last, self.mean[last])}{sure}"
        )

    def to_frame(self, k: int | None = None) -> "pandas.DataFrame":
        """A row for each training example, or the k most valuable: train_index, value, standard_error.

        Raises:
            ValueError: if k is not positive.
            ImportError: if pandas is not installed.
        """
        order = self.ranking()[: None if k is None else count(k, "k")]
        return frame(
            {"train_index": order, "value": self.mean[order], "standard_error": self.standard_error[order]},
        )

    def plot(self, ax: Any = None) -> Any:
        """The values from the highest to the lowest, with 95 % intervals over targets; returns the axes.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        ax = axes(
            ax,
            "training examples, most valuable first (%)",
            "mean score over targets (units of f)",
            f"Value over {self.targets} targets",
        )
        order = self.ranking()
        at, mean = 100 * (np.arange(len(order)) + 0.5) / len(order), self.mean[order]
        if self.targets > 1:
            margin = self._margin(CONFIDENCE)[order]
            ax.fill_between(
                at, mean - margin, mean + margin, color=STYLES[5].color, alpha=0.45, linewidth=0, label="95 % interval"
            )
        ax.plot(at, mean, color="black", linewidth=1.8, label="value")
        ax.axhline(0, color=CHANCE.color, linewidth=1.2, linestyle=CHANCE.linestyle, label="no effect")
        legend(ax)
        return ax


def data_values(scores: Scores, targets: Slice | None = None) -> DataValues:
    """Rank training examples by what they do to validation targets: the mean of their scores.

    Scores are read a block of rows at a time. The targets are to be examples whose labels are trusted, and not the
    ones that the filtered model is tested with.

    Args:
        scores: (n_train, n_targets), or anything with such `.scores`.
        targets: which of them are validation targets: a mask or indices; by default all.

    Raises:
        ValueError: for scores that are not finite, or targets that are not there.
        TypeError: for anything else.
    """
    scores = as_scores(scores)
    columns = chosen(targets, scores.shape[1], "targets")
    m, mean, error = len(columns), np.empty(len(scores)), np.full(len(scores), np.nan)
    for start, block in row_blocks(scores, columns):
        rows = slice(start, start + len(block))
        mean[rows] = block.mean(axis=1)
        if m > 1:
            error[rows] = block.std(axis=1, ddof=1) / np.sqrt(m)
    return DataValues(mean, error, m)
