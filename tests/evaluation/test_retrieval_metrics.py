"""Retrieval against enumeration."""

import numpy as np
import pytest
import torch
from score_arrays import orders_of

from trak.evaluation import retrieval


class TestRetrieval:
    """Rankings against enumeration."""

    def truth(self, scores, relevant, k):
        rows = []
        for order in orders_of(scores):
            hits = relevant[order]
            rank = 1 / (1 + np.argmax(hits))
            rows.append([rank, *(hits[:i].sum() / relevant.sum() for i in k), *(hits[:i].mean() for i in k)])
        return np.mean(rows, axis=0)

    def test_every_figure_is_expected_over_every_breaking_of_ties(self):
        rng, k = np.random.default_rng(0), (1, 2, 3, 5, 7)
        for levels in (1, 2, 3, 100):
            scores = rng.integers(0, levels, (7, 12)).astype(float)
            relevant = rng.random((7, 12)) < 0.4
            relevant[0] |= ~relevant.any(axis=0)
            found = retrieval(scores, relevant, k, resamples=10)
            for t in range(12):
                figures = [found.reciprocal_ranks[t], *found.recalls[:, t], *found.precisions[:, t]]
                np.testing.assert_allclose(figures, self.truth(scores[:, t], relevant[:, t], k))

    def test_means_are_over_targets_that_have_relevant_examples(self):
        rng = np.random.default_rng(1)
        scores, relevant = rng.normal(size=(30, 8)), rng.random((30, 8)) < 0.2
        relevant[:, [2, 5]] = False
        relevant[3, [0, 1, 3, 4, 6, 7]] = True
        found, kept = retrieval(scores, relevant), [0, 1, 3, 4, 6, 7]
        without = retrieval(scores[:, kept], relevant[:, kept])
        assert found.mrr == pytest.approx(without.mrr)
        assert found.mrr_interval == without.mrr_interval
        np.testing.assert_allclose(found.recall, without.recall)
        np.testing.assert_array_equal(found.precision_intervals, without.precision_intervals)
        assert np.isnan(found.reciprocal_ranks[[2, 5]]).all()
        assert str(found).endswith("(6 targets; 2 without relevant examples left out)")
        assert str(without).endswith("(6 targets)")

    def test_the_best_ranking_and_the_worst(self):
        relevant = np.zeros((20, 3), bool)
        relevant[:4] = True
        best = retrieval(relevant.astype(float), relevant, k=4)
        assert best.mrr == 1
        assert (best.recalls == 1).all()
        worst = retrieval(-relevant.astype(float), relevant, k=(4, 20))
        assert worst.mrr == pytest.approx(1 / 17)
        assert worst.recall.tolist() == [0, 1]
        assert worst.precision.tolist() == pytest.approx([0, 0.2])

    def test_lists_of_indices_mean_the_same_as_a_mask(self):
        rng = np.random.default_rng(2)
        scores, relevant = rng.normal(size=(15, 4)), rng.random((15, 4)) < 0.5
        lists = [np.flatnonzero(column) for column in relevant.T]
        assert str(retrieval(scores, lists)) == str(retrieval(torch.from_numpy(scores), torch.from_numpy(relevant)))

    def test_intervals_contain_their_means(self):
        rng = np.random.default_rng(3)
        found = retrieval(rng.normal(size=(40, 25)), rng.random((40, 25)) < 0.1 + 0.1, k=(1, 5))
        for name in ("recall", "precision"):
            low, high = getattr(found, f"{name}_intervals").T
            assert (low <= getattr(found, name)).all()
            assert (getattr(found, name) <= high).all()
        assert found.mrr_interval.low < found.mrr < found.mrr_interval.high

    def test_what_does_not_fit_is_refused(self):
        scores = np.zeros((5, 2))
        with pytest.raises(ValueError, match="targets has a relevant example"):
            retrieval(scores, np.zeros((5, 2), bool), k=1)
        with pytest.raises(ValueError, match=r"relevant must be bool \(5, 2\) as the scores.*got int64 \(5, 2\)"):
            retrieval(scores, np.ones((5, 2), int), k=1)
        with pytest.raises(ValueError, match="lists for 3 targets, the scores have 2"):
            retrieval(scores, [[0], [1], [2]], k=1)
        with pytest.raises(ValueError, match="relevant of target 1 must be between 0 and 4, got 5"):
            retrieval(scores, [[0], [5]], k=1)
        with pytest.raises(ValueError, match="k must be between 1 and 5, got 10"):
            retrieval(scores, [[0], [1]])
        with pytest.raises(ValueError, match="scores of target 0 must be finite"):
            retrieval(scores * np.nan, [[0], [1]], k=1)
