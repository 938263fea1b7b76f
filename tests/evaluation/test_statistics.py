"""Weighted ranks and correlations against samples written out."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from trak.evaluation.statistics import Bootstrap, resampled_spearman, weighted_ranks


def test_weighted_ranks_and_correlations_equal_those_of_the_sample_written_out():
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 6, 15).astype(float), rng.normal(size=15)
    counts = Bootstrap(resamples=40).counts(15)
    assert (counts.sum(axis=1) == 15).all()
    ranks, correlations = weighted_ranks(a, counts), resampled_spearman(a, b, counts)
    for draw, row, found in zip(counts, ranks, correlations, strict=True):
        rows = np.repeat(np.arange(15), draw)
        np.testing.assert_allclose(row[rows], rankdata(a[rows]))
        assert found == pytest.approx(spearmanr(a[rows], b[rows]).statistic)
