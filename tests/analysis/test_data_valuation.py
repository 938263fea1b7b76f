"""Data values against loops in float64."""

import numpy as np
import pytest
import torch
from score_arrays import random_scores

from trak.analysis import data_values, group_attribution
from trak.attribution.results import ArrayAttribution

NORMAL = 1.959963984540054
"""97.5th percentile of the normal distribution."""


def test_value_is_the_mean_over_targets_with_its_standard_error(blocks):
    scores = random_scores()
    found = data_values(scores)
    for i, row in enumerate(scores.astype(np.float64)):
        assert found.mean[i] == pytest.approx(sum(row) / 7, abs=1e-12)
        spread = sum((x - sum(row) / 7) ** 2 for x in row) / 6
        assert found.standard_error[i] == pytest.approx((spread / 7) ** 0.5, rel=1e-9)
    only = data_values(ArrayAttribution(scores), np.arange(7) % 2 == 0)
    np.testing.assert_allclose(only.mean, scores[:, ::2].astype(np.float64).mean(axis=1), atol=1e-12)
    assert only.targets == 4


def test_examples_to_keep_are_the_most_valuable_and_certainty_counts_both_ways():
    scores = random_scores(200, 9) + np.linspace(-1, 1, 200)[:, None]
    found = data_values(scores)
    kept = found.keep(0.9)
    assert len(kept) == 180
    assert (np.diff(kept) > 0).all()
    assert found.mean[kept].min() >= np.delete(found.mean, kept).max()
    z = found.mean / found.standard_error
    np.testing.assert_array_equal(found.helpful(), np.flatnonzero(z > NORMAL))
    np.testing.assert_array_equal(found.harmful(), np.flatnonzero(z < -NORMAL))
    assert len(found.harmful(0.99)) < len(found.harmful(0.5))
    assert "above 0 and" in str(found)


def test_one_target_has_a_value_but_no_certainty():
    found = data_values(random_scores(m=1))
    assert np.isnan(found.standard_error).all()
    assert "nan" not in str(found)
    with pytest.raises(ValueError, match="1 target tells nothing"):
        found.harmful()


def test_scores_in_bfloat16_are_those_numbers():
    scores = torch.tensor(random_scores()).bfloat16()
    np.testing.assert_array_equal(data_values(scores).mean, data_values(scores.float().numpy()).mean)


def test_a_score_that_is_not_finite_is_named(blocks):
    scores = random_scores()
    scores[33, 5] = np.nan
    for ask in (lambda: data_values(scores), lambda: group_attribution(scores, [1, 5])):
        with pytest.raises(ValueError, match="scores must be finite, got nan for training example 33 and target 5"):
            ask()
    assert np.isfinite(data_values(scores, [0, 1]).mean).all()
