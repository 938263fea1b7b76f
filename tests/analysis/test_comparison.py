"""Comparison of two models' attributions against loops in float64."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from score_arrays import random_scores

from trak.analysis import compare_attributions
from trak.evaluation import agreement


def test_comparison_is_of_scores_with_root_mean_square_1(blocks):
    a, b = random_scores(), random_scores(seed=1)
    found = compare_attributions(a, b, k=4)
    change = np.empty((40, 7))
    for t in range(7):
        x, y = a[:, t].astype(np.float64), b[:, t].astype(np.float64)
        change[:, t] = y / np.sqrt(np.mean(y**2)) - x / np.sqrt(np.mean(x**2))
        assert found.agreement.correlations[t] == pytest.approx(spearmanr(x, y)[0])
    np.testing.assert_allclose(found.shift, change.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.difference, np.sqrt((change**2).mean(axis=1)), atol=1e-12)
    np.testing.assert_allclose(found.normalized_scores(3) @ [-1, 1], change[:, 3], atol=1e-12)
    assert found.targets()[0] == found.agreement.correlations.argmin()
    assert found.examples()[0] == found.difference.argmax()
    assert str(found.agreement) == str(agreement(a, b, 4))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_of_a_models_scores_does_not_count(scale):
    a = random_scores()
    found = compare_attributions(a, (a.astype(np.float64) * scale * np.arange(1, 8)).astype(np.float32))
    np.testing.assert_allclose(found.difference, 0, atol=1e-5)


def test_an_example_that_counts_for_one_model_alone_is_found():
    a = random_scores(100, 20)
    b = a * 5 + random_scores(100, 20, seed=1)
    b[17] += 40
    found = compare_attributions(a, b)
    assert found.examples()[0] == 17
    assert found.shift[17] > 0
    assert compare_attributions(b, a).shift[17] < 0


def test_a_target_without_scores_differs_from_none():
    a = random_scores()
    a[:, 2] = 0
    assert np.isfinite(compare_attributions(a, a).difference).all()
    np.testing.assert_array_equal(compare_attributions(a, a).shift, 0)
