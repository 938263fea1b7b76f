"""The linear datamodeling score on inputs with a known answer."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from trak.evaluation import lds


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 6))
    masks = rng.random((60, 40)) < 0.5
    return scores, masks, (masks @ scores)[:, None, :] + 0.5 * rng.normal(size=(60, 3, 6))


def test_exact_linear_datamodel_scores_one(truth):
    scores, masks, _ = truth
    assert lds(scores, masks, np.repeat((masks @ scores)[:, None], 2, axis=1)).mean == pytest.approx(1)


def test_each_target_equals_scipys_spearman(truth):
    scores, masks, outputs = truth
    expected = [spearmanr((masks @ scores)[:, t], outputs.mean(1)[:, t]).statistic for t in range(6)]
    np.testing.assert_allclose(lds(scores, masks, outputs).per_target, expected)


def test_noise_ceiling_is_what_the_true_scores_reach(truth):
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(30, 200))
    masks = rng.random((300, 30)) < 0.5
    outputs = (masks @ scores)[:, None, :] + 3 * rng.normal(size=(300, 4, 200))
    found = lds(scores, masks, outputs)
    assert found.noise_ceiling == pytest.approx(found.mean, abs=0.02)
    assert np.isnan(lds(scores, masks, outputs[:, :1]).noise_ceiling)


def test_permuted_scores_are_at_chance_and_constant_ones_at_zero(truth):
    scores, masks, outputs = truth
    shuffled = np.random.default_rng(2).permutation(scores)
    found = lds(shuffled, masks, outputs)
    assert abs(found.mean) < 4 * max(found.standard_error, 1 / np.sqrt(60 * 6))
    assert (lds(np.zeros_like(scores), masks, outputs).per_target == 0).all()


def test_result_prints_as_a_line(truth):
    assert str(lds(*truth)).startswith("LDS 0.")
    assert "noise ceiling 0." in str(lds(*truth))


def test_bad_input_is_refused(truth):
    scores, masks, outputs = truth
    with pytest.raises(ValueError, match=r"got \(40, 6\), \(60, 40\) and \(60, 6\)"):
        lds(scores, masks, outputs[:, 0])
    with pytest.raises(ValueError, match="3 subsets or more, got 2"):
        lds(scores, masks[:2], outputs[:2])
    with pytest.raises(ValueError, match="finite"):
        lds(np.full_like(scores, np.nan), masks, outputs)
