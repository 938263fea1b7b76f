"""Retrieval: are the examples known to be relevant among the highest scores?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trak._utils.plotting import STYLES, axes
from trak._utils.typing import Array
from trak._utils.validation import as_array, as_indices
from trak.evaluation.ranking import expected_hits, expected_reciprocal_rank
from trak.evaluation.result import Result, draw_curve, with_interval
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap, Interval, interval_label
from trak.evaluation.validation import Indices, Scores, as_finite, as_scores, check_ks


@dataclass(frozen=True, eq=False)
class Retrieval(Result):
    """How high the relevant training examples are ranked, expected under random breaking of ties.

    A target without relevant examples has NaN everywhere, and no part in the means. The table has a row for each k: k,
    recall, recall_low, recall_high, precision, precision_low, precision_high. The figure is recall and precision by k.
    """

    reciprocal_ranks: Array
    """1 / rank of the highest relevant example of each target, (n_targets,)."""
    recalls: Array
    """Share of a target's relevant examples among its k highest, (len(k), n_targets)."""
    precisions: Array
    """Share of relevant ones among a target's k highest, (len(k), n_targets)."""
    k: tuple[int, ...]
    mrr_interval: Interval
    """All intervals are over targets."""
    recall_intervals: Array
    """(len(k), 2)."""
    precision_intervals: Array
    """(len(k), 2)."""
    confidence: float

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank."""
        return float(np.nanmean(self.reciprocal_ranks))

    @property
    def recall(self) -> Array:
        """Mean recall at each k, (len(k),)."""
        return np.nanmean(self.recalls, axis=1)

    @property
    def precision(self) -> Array:
        """Mean precision at each k, (len(k),)."""
        return np.nanmean(self.precisions, axis=1)

    def __str__(self) -> str:
        known = int(np.isfinite(self.reciprocal_ranks).sum())
        left_out = len(self.reciprocal_ranks) - known
        return (
            f"MRR {self.mrr:.3f} ({interval_label(self.confidence)} {self.mrr_interval}), "
            + ", ".join(f"recall@{k} {value:.3f}" for k, value in zip(self.k, self.recall, strict=True))
            + ", "
            + ", ".join(f"precision@{k} {value:.3f}" for k, value in zip(self.k, self.precision, strict=True))
            + f" ({known} targets"
            + (f"; {left_out} without relevant examples left out)" if left_out else ")")
        )

    def _columns(self) -> Mapping[str, Any]:
        return {
            "k": self.k,
            **with_interval("recall", self.recall, self.recall_intervals),
            **with_interval("precision", self.precision, self.precision_intervals),
        }

    def _draw(self, ax: Any) -> Any:
        title = f"Retrieval (MRR {self.mrr:.2f}), {interval_label(self.confidence)}s"
        ax = axes(ax, "highest scores looked at (k)", "share (%)", title)
        for name, style in zip(("recall", "precision"), STYLES, strict=False):
            intervals = 100 * getattr(self, f"{name}_intervals")
            draw_curve(ax, self.k, 100 * getattr(self, name), intervals, name, style)
        ax.set_ylim(0, 102)
        return ax


def retrieval(
    scores: Scores,
    relevant: Array | Sequence[Indices],
    k: int | Sequence[int] = (1, 5, 10),
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Retrieval:
    """Mean reciprocal rank, recall and precision of the k highest scores of each target.

    Args:
        scores: (n_train, n_targets), or anything with such `.scores`.
        relevant: which training examples are relevant to which target, bool (n_train, n_targets), or for each target
            the indices of those that are.
        k: how many of the highest scores to look at.
        confidence: of the intervals: percentiles of the bootstrap over targets, two-sided.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: if no target has a relevant example; for shapes that do not fit, or NaN.
    """
    scores = as_scores(scores)
    n, targets = scores.shape
    if isinstance(relevant, list | tuple):
        if len(relevant) != targets:
            raise ValueError(
                f"relevant has lists for {len(relevant)} targets, the scores have {targets}; give one list for each "
                "target"
            )
        truth = np.zeros((n, targets), bool)
        for t, indices in enumerate(relevant):
            if len(indices):
                truth[as_indices(indices, n, f"relevant of target {t}"), t] = True
    else:
        truth = as_array(relevant)
        if truth.dtype != bool or truth.shape != scores.shape:
            raise ValueError(
                f"relevant must be bool {scores.shape} as the scores, or a list of indices for each target, got "
                f"{truth.dtype} {truth.shape}; pass either"
            )
    ks = check_ks(k, n)
    known = truth.any(axis=0)
    if not known.any():
        raise ValueError(f"none of the {targets} targets has a relevant example; mark at least one in relevant")
    reciprocal = np.full(targets, np.nan)
    recalls, precisions = np.full((2, len(ks), targets), np.nan)
    for t in np.flatnonzero(known).tolist():
        column = as_finite(scores[:, t], f"scores of target {t}")
        hits = expected_hits(column, truth[:, t])
        reciprocal[t] = expected_reciprocal_rank(column, truth[:, t])
        recalls[:, t], precisions[:, t] = hits[ks] / hits[-1], hits[ks] / ks
    bootstrap = Bootstrap(resamples, confidence, seed)
    values = np.concatenate([reciprocal[None], recalls, precisions])[:, known]
    intervals = bootstrap.mean_intervals(values)
    of_mrr, of_recall, of_precision = np.split(intervals, [1, 1 + len(ks)])
    found = (reciprocal, recalls, precisions, tuple(ks), Interval(*of_mrr[0].tolist()), of_recall, of_precision)
    return Retrieval(*found, bootstrap.confidence)
