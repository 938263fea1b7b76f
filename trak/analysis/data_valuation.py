"""Which training examples are valuable over a validation set, and which useless or harmful?"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from trak._utils.plotting import STYLES, axes
from trak._utils.typing import Array
from trak._utils.validation import as_indices, check_count, check_fraction, is_number
from trak.evaluation.ranking import top_indices
from trak.evaluation.result import REFERENCE, DataFrame, Result, format_examples
from trak.evaluation.statistics import CONFIDENCE
from trak.evaluation.validation import Indices, Scores, as_scores, row_blocks


@dataclass(frozen=True, eq=False)
class DataValues(Result):
    """What each training example does to the mean output of the validation targets.

    The table has a row for each training example, the most valuable first: train_index, value, standard_error. The
    figure shows the values from the highest to the lowest, with 95 % intervals over targets.
    """

    mean: Array
    """Mean of its scores over targets, in units of f: positive helps; float64 (n_train,)."""
    standard_error: Array
    """Of that mean, over targets: how much it would change with other targets of the same kind; NaN for one target."""
    targets: int
    """Number of targets."""

    def ranking(self) -> Array:
        """All training examples, the most valuable first; int64 (n_train,)."""
        return top_indices(self.mean)

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
        """Training examples whose value is below 0 at this confidence, as `helpful` does for those above 0."""
        return np.flatnonzero(self.mean < -self._margin(confidence))

    def _margin(self, confidence: float) -> Array:
        confidence = check_fraction(confidence, "confidence")
        if self.targets < 2:
            raise ValueError(
                f"{self.targets} target tells nothing of how certain a mean over targets is; give two or more"
            )
        return NormalDist().inv_cdf(0.5 + confidence / 2) * self.standard_error

    def __str__(self) -> str:
        order, certain = self.ranking(), ""
        if self.targets > 1:
            above, below = len(self.helpful()), len(self.harmful())
            certain = f"; {above} above 0 and {below} below by their 95 % intervals"
        return (
            f"Value of {len(order)} training examples over {self.targets} targets: highest "
            f"{format_examples(order, self.mean)}; lowest {format_examples(order[::-1], self.mean)}{certain}"
        )

    def to_frame(self, k: int | None = None) -> DataFrame:
        """The table, of all training examples or the k most valuable.

        Raises:
            ValueError: if k is not positive.
            ImportError: if pandas is not installed.
        """
        return super().to_frame()[: None if k is None else check_count(k, "k")]

    def _columns(self) -> Mapping[str, Any]:
        order = self.ranking()
        return {"train_index": order, "value": self.mean[order], "standard_error": self.standard_error[order]}

    def _draw(self, ax: Any) -> Any:
        labels = "training examples, most valuable first (%)", "mean score over targets (units of f)"
        ax = axes(ax, *labels, f"Value over {self.targets} targets")
        order = self.ranking()
        at, mean = 100 * (np.arange(len(order)) + 0.5) / len(order), self.mean[order]
        if self.targets > 1:
            margin, look = self._margin(CONFIDENCE)[order], {"color": STYLES[5].color, "alpha": 0.45, "linewidth": 0}
            ax.fill_between(at, mean - margin, mean + margin, **look, label="95 % interval")
        ax.plot(at, mean, color="black", linewidth=1.8, label="value")
        ax.axhline(0, **REFERENCE, label="no effect")
        return ax


def data_values(scores: Scores, targets: Indices | None = None) -> DataValues:
    """Rank training examples by what they do to validation targets: the mean of their scores.

    Scores are read a block of rows at a time. The targets are to be examples whose labels are trusted, and not the
    ones that the filtered model is tested with.

    Args:
        scores: (n_train, n_targets), or anything with such `.scores`.
        targets: which of them are validation targets: a mask or indices; by default all.

    Raises:
        ValueError: for scores that are not finite, or targets out of range.
        TypeError: for anything else.
    """
    scores = as_scores(scores)
    columns = as_indices(targets, scores.shape[1], "targets")
    m, mean, error = len(columns), np.empty(len(scores)), np.full(len(scores), np.nan)
    for start, block in row_blocks(scores, columns):
        rows = slice(start, start + len(block))
        mean[rows] = block.mean(axis=1)
        if m > 1:
            error[rows] = block.std(axis=1, ddof=1) / np.sqrt(m)
    return DataValues(mean, error, m)
