"""Mislabelled examples found by suspicion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trak._utils.plotting import CHANCE, STYLES, axes, legend
from trak._utils.validation import as_array
from trak.evaluation.plots import frame
from trak.evaluation.ranking import expected_hits
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap, Interval, in_words, weighted_ranks
from trak.evaluation.validation import finite, numbers_of_examples

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class MislabelDetection:
    """How well suspicion finds mislabelled training examples."""

    auroc: float
    """Chance that a mislabelled example is more suspicious than another one; ties count half."""
    interval: Interval
    """Of the AUROC, over examples."""
    confidence: float
    average_precision: float
    k: tuple[int, ...]
    precision: Array
    """Share of mislabelled among the k most suspicious, expected under random breaking of ties, (len(k),)."""
    found: Array
    """Number of mislabelled among the i most suspicious, likewise, (n_train + 1,) for i from 0."""

    @property
    def find_label_issues(self) -> int:
        """Number of mislabelled examples."""
        return round(float(self.found[-1]))

    def __str__(self) -> str:
        at_k = ", ".join(f"precision at {k} {p:.3f}" for k, p in zip(self.k, self.precision, strict=True))
        return (
            f"Mislabel detection: AUROC {self.auroc:.3f} ({in_words(self.confidence)} {self.interval}), average "
            f"precision {self.average_precision:.3f}, {at_k} ({self.find_label_issues} of {len(self.found) - 1} mislabelled)"
        )

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each k: k, precision, recall.

        Raises:
            ImportError: if pandas is not installed.
        """
        recall = self.precision * self.k / self.find_label_issues
        return frame({"k": self.k, "precision": self.precision, "recall": recall})

    def plot(self, ax: Any = None) -> Any:
        """Share of the mislabelled found by the share of examples looked at, most suspicious first; returns the axes.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        ax = axes(ax, "training examples inspected (%)", "mislabelled examples found (%)", "Mislabel detection")
        inspected = np.linspace(0, 100, len(self.found))
        label = f"by suspicion (AUROC {self.auroc:.2f}, {in_words(self.confidence)} {self.interval})"
        ax.plot(inspected, 100 * self.found / self.find_label_issues, color=STYLES[0].color, linewidth=2, label=label)
        best = np.minimum(np.arange(len(self.found)), self.find_label_issues) / self.find_label_issues
        ax.plot(inspected, 100 * best, color="black", linewidth=1.2, linestyle="--", label="best possible")
        ax.plot([0, 100], [0, 100], color=CHANCE.color, linewidth=1.2, linestyle=CHANCE.linestyle, label="chance")
        legend(ax, "lower right")
        return ax


def mislabel_detection(
    suspicion: Array,
    flipped: Array,
    k: int | Sequence[int] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> MislabelDetection:
    """Compare suspicion with which labels were flipped in truth.

    Args:
        suspicion: one number for each training example, higher for likelier mislabelled, (n_train,); `self_influence`
            and `harmfulness` give such.
        flipped: which examples are mislabelled, bool (n_train,), or their indices.
        k: how many of the most suspicious to look at, for the precision; by default as many as are mislabelled.
        confidence: of the AUROC's interval: percentiles of the bootstrap over examples, two-sided.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: if no example is mislabelled, or every one; for shapes that do not fit, or NaN.
    """
    suspicion = finite(as_array(suspicion), "suspicion")
    if suspicion.ndim != 1:
        raise ValueError(
            f"suspicion must have one number for each training example, got shape {suspicion.shape}; pass a vector, "
            "such as self_influence's"
        )
    n, truth = len(suspicion), _flipped(flipped, len(suspicion))
    wrong = int(truth.sum())
    if not 0 < wrong < n:
        raise ValueError(
            f"{wrong} of {n} examples are mislabelled: some must be and some must not; mark some, and not all, in "
            "flipped"
        )
    found = expected_hits(suspicion, truth)
    sizes = numbers_of_examples(wrong if k is None else k, n)
    bootstrap = Bootstrap(resamples, confidence, seed)
    # As many of either kind in every resample, so that the AUROC is always defined.
    draws = np.empty((bootstrap.resamples, n), np.int64)
    for kind in (truth, ~truth):
        draws[:, kind] = bootstrap.counts(int(kind.sum()))
    low, high = bootstrap.interval(_auroc(suspicion, truth, draws)).tolist()
    return MislabelDetection(
        auroc=float(_auroc(suspicion, truth, np.ones((1, n), np.int64))[0]),
        interval=Interval(low, high),
        confidence=bootstrap.confidence,
        average_precision=_average_precision(suspicion, truth),
        k=tuple(sizes),
        precision=found[sizes] / sizes,
        found=found,
    )


def _flipped(given: Any, n: int) -> Array:
    array = as_array(given)
    if array.dtype == bool:
        if array.shape != (n,):
            raise ValueError(
                f"expected flipped of shape {(n,)}, as suspicion, got {array.shape}; give one for each training example"
            )
        return array
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array) or array.min() < 0 or array.max() >= n:
        raise ValueError(
            f"flipped must be bool {(n,)}, or indices from 0 to {n - 1}, got {array.dtype} {array.shape}; pass either"
        )
    truth = np.zeros(n, bool)
    truth[array] = True
    return truth


def _auroc(suspicion: Array, truth: Array, counts: Array) -> Array:
    """By the rank sum of the mislabelled (Mann & Whitney, 1947), in samples with `counts[b, i]` copies of example i."""
    result = np.empty(len(counts))
    at_once = max(1, 2**22 // len(suspicion))
    for start in range(0, len(counts), at_once):
        some = counts[start : start + at_once]
        ranks = weighted_ranks(suspicion, some)
        wrong, right = some[:, truth].sum(axis=1), some[:, ~truth].sum(axis=1)
        rank_sum = (some[:, truth] * ranks[:, truth]).sum(axis=1)
        result[start : start + at_once] = (rank_sum - wrong * (wrong + 1) / 2) / (wrong * right)
    return result


def _average_precision(suspicion: Array, truth: Array) -> float:
    """Mean of the precision over the mislabelled, each at its own threshold: all ties are above it together."""
    order = np.argsort(-suspicion, kind="stable")
    last = np.flatnonzero(np.append(np.diff(suspicion[order]) != 0, True))
    hits = truth[order].cumsum()[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])
