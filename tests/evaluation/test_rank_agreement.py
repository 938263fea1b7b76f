"""Agreement of two attributions against scipy."""

import numpy as np
import pytest
from models import images
from scipy.stats import kendalltau, spearmanr

import trak
from trak.evaluation import agreement


class TestAgreement:
    """Of two attributions."""

    @pytest.fixture
    def pair(self):
        rng = np.random.default_rng(0)
        common = rng.normal(size=(60, 9))
        return common + rng.normal(size=common.shape), common + rng.normal(size=common.shape)

    def test_it_equals_scipys_spearman_and_the_overlap_of_sets(self, pair):
        a, b = pair
        found = agreement(a, b, k=7)
        for t in range(9):
            assert found.correlations[t] == pytest.approx(spearmanr(a[:, t], b[:, t]).statistic)
            tops = [set(np.argsort(-x[:, t])[:7]) for x in pair]
            assert found.overlaps[t] == len(tops[0] & tops[1]) / 7
        assert found.correlation == pytest.approx(found.correlations.mean())
        assert found.interval.low < found.correlation < found.interval.high
        assert found.overlap_interval.low <= found.overlap <= found.overlap_interval.high
        assert kendalltau(a[:, 0], b[:, 0]).statistic > 0

    def test_the_same_scores_agree_and_unrelated_ones_do_not(self, pair):
        same = agreement(pair[0], 3 * pair[0])
        assert (same.correlation, same.overlap) == (pytest.approx(1), 1)
        covered = []
        for seed in range(100):
            a, b = np.random.default_rng(seed).normal(size=(2, 60, 30))
            unrelated = agreement(a, b, resamples=200)
            ends = zip((0, 10 / 60), (unrelated.interval, unrelated.overlap_interval), strict=True)
            covered.append([low <= chance <= high for chance, (low, high) in ends])
        assert (np.mean(covered, axis=0) > 0.84).all()

    def test_constant_scores_agree_with_nothing(self, pair):
        found = agreement(pair[0], np.ones_like(pair[0]))
        assert (found.correlations == 0).all()

    def test_by_default_no_more_than_all_examples_are_compared(self):
        assert agreement(np.eye(4), np.eye(4)).k == 4
        assert agreement(np.eye(11), np.eye(11)).k == 10

    def test_attributions_are_taken_as_they_are(self, pair, tmp_path):
        case = images()
        found = [
            trak.attribute(
                case.model, case.task, case.model.state_dict(), case.batches, case.batches, tmp_path / str(seed),
                proj_dim=64, projector_seed=seed, progress=False,
            )
            for seed in range(2)
        ]  # fmt: skip
        assert 0.5 < agreement(*found).correlation < 1

    def test_what_does_not_fit_is_refused(self, pair):
        with pytest.raises(ValueError, match=r"one shape \(n_train, n_targets\), got \(60, 9\) and \(60, 8\)"):
            agreement(pair[0], pair[1][:, 1:])
        with pytest.raises(ValueError, match=r"expected a of shape \(n_train, n_targets\), got \(60,\)"):
            agreement(pair[0][:, 0], pair[1][:, 0])
        with pytest.raises(ValueError, match="b of target 0 must be finite"):
            agreement(pair[0], np.full_like(pair[0], np.nan))
        with pytest.raises(ValueError, match="k must be between 1 and 60, got 61"):
            agreement(*pair, k=61)
