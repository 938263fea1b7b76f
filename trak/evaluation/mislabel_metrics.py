"""How well label issue scores find mislabelled training examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trak._utils.plotting import STYLES, axes
from trak._utils.typing import Array
from trak._utils.validation import as_array, as_indices
from trak.evaluation.ranking import expected_hits, top_indices
from trak.evaluation.result import REFERENCE, Result
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap, Interval, interval_label, weighted_ranks
from trak.evaluation.validation import Indices, as_finite, as_mask, check_ks


@dataclass(frozen=True, eq=False)
class MislabelDetection(Result):
    """How well label issue scores find mislabelled training examples.

    The table has a row for each k: k, precision, recall. The figure is the share of the mislabelled examples found by
    the share of examples inspected, the highest scores first.
    """

    _legend = "lower right"

    auroc: float
    """Chance that a mislabelled example has a higher score than another one; ties count half."""
    interval: Interval
    """Of the AUROC, over examples."""
    confidence: float
    average_precision: float
    k: tuple[int, ...]
    precision: Array
    """Share of mislabelled among the k highest scores, expected under random breaking of ties, (len(k),)."""
    found: Array
    """Number of mislabelled among the i highest scores, expected in the same way, (n_train + 1,) for i from 0."""

    @property
    def num_mislabelled(self) -> int:
        """Number of mislabelled examples."""
        return round(float(self.found[-1]))

    def __str__(self) -> str:
        at_k = ", ".join(f"precision at {k} {p:.3f}" for k, p in zip(self.k, self.precision, strict=True))
        return (
            f"Mislabel detection: AUROC {self.auroc:.3f} ({interval_label(self.confidence)} {self.interval}), average "
            f"precision {self.average_precision:.3f}, {at_k} ({self.num_mislabelled} of {len(self.found) - 1} "
            "mislabelled)"
        )

    def _columns(self) -> Mapping[str, Any]:
        recall = self.precision * self.k / self.num_mislabelled
        return {"k": self.k, "precision": self.precision, "recall": recall}

    def _draw(self, ax: Any) -> Any:
        ax = axes(ax, "training examples inspected (%)", "mislabelled examples found (%)", "Mislabel detection")
        inspected, total = np.linspace(0, 100, len(self.found)), self.num_mislabelled
        label = f"by score (AUROC {self.auroc:.2f}, {interval_label(self.confidence)} {self.interval})"
        ax.plot(inspected, 100 * self.found / total, color=STYLES[0].color, linewidth=2, label=label)
        best = np.minimum(np.arange(len(self.found)), total) / total
        ax.plot(inspected, 100 * best, color="black", linewidth=1.2, linestyle="--", label="best possible")
        ax.plot([0, 100], [0, 100], **REFERENCE, label="chance")
        return ax


def mislabel_detection(
    issue_scores: Array,
    flipped: Indices,
    k: int | Sequence[int] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> MislabelDetection:
    """Compare label issue scores with which labels are known to be wrong.

    Args:
        issue_scores: one number for each training example, higher for likelier mislabelled, (n_train,); see
            `self_influence` and `harm_scores`.
        flipped: which examples are mislabelled, bool (n_train,), or their indices.
        k: how many of the highest scores to look at, for the precision; by default as many as are mislabelled.
        confidence: of the AUROC's interval: percentiles of the bootstrap over examples, two-sided.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: if no example is mislabelled, or every one; for shapes that do not fit, or NaN.
    """
    scores = check_issue_scores(issue_scores)
    n = len(scores)
    truth = as_mask(as_indices(flipped, n, "flipped"), n)
    wrong = int(truth.sum())
    if wrong == n:
        raise ValueError(f"all {n} of {n} examples are mislabelled; mark some, and not all, in flipped")
    found = expected_hits(scores, truth)
    ks = check_ks(wrong if k is None else k, n)
    bootstrap = Bootstrap(resamples, confidence, seed)
    # As many of either kind in every resample, so that the AUROC is always defined.
    draws = np.empty((bootstrap.resamples, n), np.int64)
    for kind in (truth, ~truth):
        draws[:, kind] = bootstrap.counts(int(kind.sum()))
    auroc = float(_auroc(scores, truth, np.ones((1, n), np.int64))[0])
    interval = Interval(*bootstrap.interval(_auroc(scores, truth, draws)).tolist())
    average = _average_precision(scores, truth)
    return MislabelDetection(auroc, interval, bootstrap.confidence, average, tuple(ks), found[ks] / ks, found)


def check_issue_scores(given: Any) -> Array:
    """Label issue scores, one finite number for each training example: float64 (n_train,)."""
    array = as_array(given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"issue_scores must be real numbers, got an array of {array.dtype}; convert them to floats")
    if not array.size:
        raise ValueError("issue_scores is empty: give one number for each training example")
    if array.ndim != 1:
        raise ValueError(
            f"issue_scores must have one number for each training example, got shape {array.shape}; for attribution "
            "scores, call trak.evaluation.harm_scores first"
        )
    return as_finite(array, "issue_scores")


def _auroc(scores: Array, truth: Array, counts: Array) -> Array:
    """By the rank sum of the mislabelled (Mann & Whitney, 1947), in samples with `counts[b, i]` copies of example i."""
    result = np.empty(len(counts))
    at_once = max(1, 2**22 // len(scores))
    for start in range(0, len(counts), at_once):
        some = counts[start : start + at_once]
        ranks = weighted_ranks(scores, some)
        wrong, right = some[:, truth].sum(axis=1), some[:, ~truth].sum(axis=1)
        rank_sum = (some[:, truth] * ranks[:, truth]).sum(axis=1)
        result[start : start + at_once] = (rank_sum - wrong * (wrong + 1) / 2) / (wrong * right)
    return result


def _average_precision(scores: Array, truth: Array) -> float:
    """Mean of the precision over the mislabelled, each at its own threshold: all ties are above it together."""
    order = top_indices(scores)
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = truth[order].cumsum()[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])
