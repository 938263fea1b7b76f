"""Rank correlation, and how far a figure can be trusted: the bootstrap (Efron, 1979)."""

from typing import NamedTuple

import numpy as np

from trak._utils.optional import import_optional_dependency
from trak._utils.typing import Array
from trak._utils.validation import check_count, check_fraction

_PERMUTATIONS_AT_ONCE = 1000
RESAMPLES = 1000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}" if self.low <= self.high else "not known"


class Bootstrap:
    """Percentile intervals from seeded resampling with replacement."""

    def __init__(self, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0) -> None:
        self.resamples = check_count(resamples, "resamples")
        self.confidence = check_fraction(confidence, "confidence")
        self._rng = np.random.default_rng(check_count(seed, "seed", least=0))

    def counts(self, size: int) -> Array:
        """How often each of `size` units is drawn in each resample: int64 (resamples, size)."""
        return self._rng.multinomial(size, np.full(size, 1 / size), self.resamples)

    def interval(self, values: Array) -> Array:
        """The percentile interval of values (resamples, ...): (..., 2), NaN where one is NaN."""
        tail = (1 - self.confidence) / 2
        return np.moveaxis(np.quantile(values, [tail, 1 - tail], axis=0), 0, -1)

    def mean_intervals(self, values: Array) -> Array:
        """Percentile intervals of the means of n independent units, (..., n): (..., 2), NaN for fewer than two."""
        n = values.shape[-1]
        if n < 2:
            return np.full((*values.shape[:-1], 2), np.nan)
        return self.interval(np.moveaxis(values @ self.counts(n).T / n, -1, 0))


def interval_label(confidence: float) -> str:
    """The name of an interval, such as "95 % interval"."""
    return f"{100 * confidence:.4g} % interval"


def standardized_ranks(values: Array) -> Array:
    """Ranks of each column less their mean, divided by their norm; zeros where a column is constant. Ties share
    their mean rank, float64."""
    stats = import_optional_dependency("scipy.stats", "trak.evaluation needs scipy", "evaluation")
    ranks = stats.rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    norm = np.sqrt((ranks**2).sum(axis=0))
    return np.divide(ranks, norm, out=np.zeros_like(ranks), where=norm > 0)


def spearman(a: Array, b: Array) -> Array:
    """Spearman's rank correlation of each column of `a` with that of `b`; 0 where a column is constant."""
    return (standardized_ranks(a) * standardized_ranks(b)).sum(axis=0)


def weighted_ranks(values: Array, counts: Array) -> Array:
    """The ranks that values (m,) have in a sample that holds value i `counts[b, i]` times: (B, m), from 1. Ties, copies
    included, share their mean rank; the rank of a value that the sample lacks means nothing."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    within = np.add.reduceat(counts[:, order], first, axis=1)
    mean_rank = within.cumsum(axis=1) - (within - 1) / 2
    group = np.empty(len(values), np.int64)
    group[order] = np.repeat(np.arange(len(first)), np.diff([*first, len(values)]))
    return mean_rank[:, group]


def resampled_spearman(a: Array, b: Array, counts: Array) -> Array:
    """Spearman's correlation of a (m,) and b (m,) in samples that hold pair i `counts[r, i]` times: (resamples,), 0
    where either is constant."""
    middle = (counts.sum(axis=1, keepdims=True) + 1) / 2
    x, y = (weighted_ranks(values, counts) - middle for values in (a, b))
    weighted = counts * x
    norm = np.sqrt((weighted * x).sum(axis=1) * (counts * y * y).sum(axis=1))
    return np.divide((weighted * y).sum(axis=1), norm, out=np.zeros_like(norm), where=norm > 0)


def permutation_p_value(x: Array, y: Array, permutations: int, seed: int) -> float:
    """(1 + permutations of subsets whose mean correlation is no less) / (1 + permutations): Phipson & Smyth (2010).

    Every target's subsets are permuted alike, since targets are not independent.
    """
    m = len(x)
    products = x @ y.T
    observed = np.trace(products) - 1e-9  # sums in another order differ by rounding
    rng, reached, columns = np.random.default_rng([seed, 1]), 0, np.arange(m)
    for start in range(0, permutations, _PERMUTATIONS_AT_ONCE):
        some = min(_PERMUTATIONS_AT_ONCE, permutations - start)
        orders = rng.permuted(np.broadcast_to(columns, (some, m)), axis=1)
        reached += int((products[orders, columns].sum(axis=1) >= observed).sum())
    return (1 + reached) / (1 + permutations)
