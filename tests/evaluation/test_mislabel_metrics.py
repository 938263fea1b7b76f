"""Mislabel detection against scikit-learn and brute force."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from score_arrays import orders_of
from sklearn.metrics import average_precision_score, roc_auc_score

from trak.evaluation import mislabel_detection


class TestMislabelDetection:
    """Label issue scores against the truth."""

    @pytest.fixture(params=["distinct", "ties"])
    def case(self, request):
        rng = np.random.default_rng(0)
        flipped = rng.random(200) < 0.15
        scores = rng.normal(size=200) + 1.5 * flipped
        return (scores if request.param == "distinct" else np.round(scores)), flipped

    def test_auroc_and_average_precision_equal_sklearns(self, case):
        found = mislabel_detection(*case)
        assert found.auroc == pytest.approx(roc_auc_score(case[1], case[0]))
        assert found.average_precision == pytest.approx(average_precision_score(case[1], case[0]))
        statistic = mannwhitneyu(case[0][case[1]], case[0][~case[1]]).statistic
        assert found.auroc == pytest.approx(statistic / case[1].sum() / (~case[1]).sum())

    def test_precision_is_expected_over_every_breaking_of_ties(self):
        scores, flipped = np.array([3, 1, 2, 2, 2, 0, 0]), np.array([0, 1, 1, 0, 1, 0, 1], bool)
        found = mislabel_detection(scores, flipped, k=range(1, 8))
        orders = list(orders_of(scores))
        assert len(orders) == 12
        for k, precision in zip(found.k, found.precision, strict=True):
            assert precision == pytest.approx(np.mean([flipped[order[:k]].mean() for order in orders]))
        np.testing.assert_allclose(found.found[1:], found.precision * np.arange(1, 8))

    def test_perfect_reversed_and_constant_scores(self):
        flipped = np.arange(20) < 4
        assert mislabel_detection(flipped.astype(float), flipped).auroc == 1
        assert mislabel_detection(flipped.astype(float), flipped).average_precision == 1
        assert mislabel_detection(-flipped.astype(float), flipped).auroc == 0
        constant = mislabel_detection(np.ones(20), flipped)
        assert constant.auroc == 0.5
        assert constant.interval == (0.5, 0.5)
        assert constant.average_precision == pytest.approx(0.2)
        assert constant.precision == pytest.approx(0.2)

    def test_indices_mean_the_same_as_a_mask(self, case):
        one, two = mislabel_detection(*case), mislabel_detection(case[0], np.flatnonzero(case[1]))
        assert str(one) == str(two)

    def test_by_default_as_many_are_looked_at_as_are_mislabelled(self, case):
        found = mislabel_detection(*case)
        assert found.k == (case[1].sum(),)
        assert found.num_mislabelled == case[1].sum()

    def test_the_interval_covers_the_true_auroc(self):
        from scipy.stats import norm

        truth, covered = norm.cdf(1 / np.sqrt(2)), []
        for seed in range(100):
            rng = np.random.default_rng(seed)
            flipped = np.arange(80) < 20
            low, high = mislabel_detection(rng.normal(size=80) + flipped, flipped, resamples=200, seed=seed).interval
            covered.append(low <= truth <= high)
        assert 0.87 <= np.mean(covered) <= 1

    def test_what_can_not_be_scored_is_refused(self):
        with pytest.raises(ValueError, match="flipped is a mask that is True nowhere, of 3"):
            mislabel_detection(np.arange(3), np.zeros(3, bool))
        with pytest.raises(ValueError, match="3 of 3 examples are mislabelled"):
            mislabel_detection(np.arange(3), np.ones(3, bool))
        with pytest.raises(ValueError, match=r"issue_scores must be finite, got nan at \(1,\)"):
            mislabel_detection([0, np.nan, 1], [0])
        with pytest.raises(ValueError, match="flipped must be between 0 and 2, got 3"):
            mislabel_detection(np.arange(3), [3])
        with pytest.raises(ValueError, match=r"flipped is a mask of shape \(2,\), expected \(3,\)"):
            mislabel_detection(np.arange(3), np.ones(2, bool))
        with pytest.raises(ValueError, match=r"got shape \(3, 1\)"):
            mislabel_detection(np.zeros((3, 1)), [0])
        with pytest.raises(ValueError, match="k must be between 1 and 3, got 4"):
            mislabel_detection(np.arange(3), [0], k=4)
