"""Mislabel detection, retrieval and agreement against brute force, and self-influence against dense linear algebra."""

import itertools

import numpy as np
import pytest
import torch
from models import images
from scipy.stats import kendalltau, mannwhitneyu, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

import trak
from trak.evaluation import agreement, harmfulness, mislabel_detection, retrieval, self_influence


def orders_of(scores):
    """Every order from the highest score down, all as likely under random breaking of ties."""
    groups = [np.flatnonzero(scores == value) for value in np.unique(scores)[::-1]]
    for pieces in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield np.concatenate([np.array(piece, int) for piece in pieces])


class TestMislabels:
    """Suspicion against the truth."""

    @pytest.fixture(params=["distinct", "ties"])
    def case(self, request):
        rng = np.random.default_rng(0)
        flipped = rng.random(200) < 0.15
        suspicion = rng.normal(size=200) + 1.5 * flipped
        return (suspicion if request.param == "distinct" else np.round(suspicion)), flipped

    def test_auroc_and_average_precision_equal_sklearns(self, case):
        found = mislabel_detection(*case)
        assert found.auroc == pytest.approx(roc_auc_score(case[1], case[0]))
        assert found.average_precision == pytest.approx(average_precision_score(case[1], case[0]))
        statistic = mannwhitneyu(case[0][case[1]], case[0][~case[1]]).statistic
        assert found.auroc == pytest.approx(statistic / case[1].sum() / (~case[1]).sum())

    def test_precision_is_expected_over_every_breaking_of_ties(self):
        suspicion, flipped = np.array([3, 1, 2, 2, 2, 0, 0]), np.array([0, 1, 1, 0, 1, 0, 1], bool)
        found = mislabel_detection(suspicion, flipped, k=range(1, 8))
        orders = list(orders_of(suspicion))
        assert len(orders) == 12
        for k, precision in zip(found.k, found.precision, strict=True):
            assert precision == pytest.approx(np.mean([flipped[order[:k]].mean() for order in orders]))
        np.testing.assert_allclose(found.found[1:], found.precision * np.arange(1, 8))

    def test_perfect_reversed_and_constant_suspicion(self):
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
        assert found.find_label_issues == case[1].sum()

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
        with pytest.raises(ValueError, match="0 of 3 examples are mislabelled"):
            mislabel_detection(np.arange(3), np.zeros(3, bool))
        with pytest.raises(ValueError, match="3 of 3 examples are mislabelled"):
            mislabel_detection(np.arange(3), np.ones(3, bool))
        with pytest.raises(ValueError, match=r"suspicion must be finite, got nan at \(1,\)"):
            mislabel_detection([0, np.nan, 1], [0])
        with pytest.raises(ValueError, match=r"flipped must be bool \(3,\), or indices from 0 to 2"):
            mislabel_detection(np.arange(3), [3])
        with pytest.raises(ValueError, match=r"expected flipped of shape \(3,\)"):
            mislabel_detection(np.arange(3), np.ones(2, bool))
        with pytest.raises(ValueError, match=r"got shape \(3, 1\)"):
            mislabel_detection(np.zeros((3, 1)), [0])
        with pytest.raises(ValueError, match="k must be between 1 and 3, got 4"):
            mislabel_detection(np.arange(3), [0], k=4)


class TestSuspicion:
    """Numbers from stored features and from scores."""

    @pytest.fixture
    def case(self):
        return images()

    @pytest.fixture
    def attributed(self, case, tmp_path):
        states = [{k: v + 0.1 * i for k, v in case.model.state_dict().items()} for i in range(2)]

        def attributed(**options):
            return trak.attribute(
                case.model, case.task, states, case.batches, case.batches, tmp_path / str(len(options)), proj_dim=16,
                progress=False, **options,
            )  # fmt: skip

        return attributed

    @pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
    def test_self_influence_is_the_diagonal_of_the_training_set_scored_for_itself(self, attributed, dtype):
        found = attributed(dtype=dtype, normalize_checkpoints=False, damping=3.0)
        own = self_influence(found, "output", damping=3.0, progress=False)
        assert own.dtype == np.float64
        np.testing.assert_allclose(own, np.diagonal(found.scores), rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("of, power", [("kernel", 0), ("output", 1), ("loss", 2)])
    @pytest.mark.parametrize("weighting", ["ggn", "identity"])
    def test_it_equals_the_formula_with_an_explicit_inverse(self, attributed, of, power, weighting):
        store = attributed(weighting=weighting).experiment.store
        kernels, qs = [], []
        for i in store.checkpoints():
            phi = store.table(i).features.read().astype(np.float64)
            w = store.table(i).column("out_to_loss_curvature") if weighting == "ggn" else np.ones(len(phi))
            gram = phi.T @ (w[:, None] * phi)
            inverse = np.linalg.inv(gram + 0.5 * np.trace(gram) / 16 * np.eye(16))
            kernels.append(np.einsum("ij,jk,ik->i", phi, inverse, phi))
            qs.append(store.table(i).column("out_to_loss_grad"))
        found = self_influence(store, of, weighting=weighting, damping=0.5, progress=False)
        np.testing.assert_allclose(found, np.mean(kernels, axis=0) * np.mean(qs, axis=0) ** power, rtol=1e-4)

    def test_checkpoints_are_those_of_the_source_unless_given_and_damping_is_its_own(self, attributed, case, tmp_path):
        strong = attributed(damping=100.0)
        own = self_influence(strong, progress=False)
        np.testing.assert_array_equal(self_influence(strong.experiment.store, progress=False), own)
        np.testing.assert_array_equal(self_influence(strong, damping=0.3, progress=False), own)
        traker = trak.TRAKer(case.model, case.task, 23, tmp_path / "1", proj_dim=16, damping=100.0)
        np.testing.assert_array_equal(self_influence(traker, progress=False), own)
        one = self_influence(strong, "kernel", model_ids=[1], progress=False)
        other = self_influence(strong, "kernel", model_ids=[0], progress=False)
        np.testing.assert_allclose((one + other) / 2, self_influence(strong, "kernel", progress=False))

    def test_it_streams_blocks_of_any_size(self, attributed, monkeypatch):
        found = attributed()
        expected = self_influence(found, progress=False)
        monkeypatch.setattr("trak.evaluation.self_influence._ROWS_AT_ONCE", 5)
        np.testing.assert_allclose(self_influence(found, progress=False), expected, rtol=1e-10)

    def test_it_shows_its_progress(self, attributed, capsys):
        self_influence(attributed())
        assert "46/46" in capsys.readouterr().err

    def test_flipped_labels_have_more_of_it(self, tmp_path):
        rng = np.random.default_rng(0)
        x = torch.from_numpy(rng.normal(size=(150, 5))).float()
        y = (x[:, 0] > 0).long()
        flipped = rng.permutation(150) < 15
        y[flipped] = 1 - y[flipped]
        model = torch.nn.Linear(5, 2)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50)

        def loss():
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(model(x), y) + 0.01 * model.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        found = trak.attribute(
            model, "image_classification", model.state_dict(), [(x, y)], [(x[:5], y[:5])], tmp_path, proj_dim=12,
            projector="identity", loss_temperature=1, progress=False,
        )  # fmt: skip
        assert mislabel_detection(self_influence(found, "output", progress=False), flipped).interval.low > 0.6
        assert mislabel_detection(self_influence(found, progress=False), flipped).auroc > 0.8

    def test_what_has_no_features_or_is_unknown_is_refused(self, attributed):
        with pytest.raises(TypeError, match=r"needs stored features: what trak\.attribute returned.*got ndarray"):
            self_influence(np.zeros((3, 3)))
        with pytest.raises(ValueError, match="unknown of='losses': did you mean 'loss'"):
            self_influence(attributed(), "losses")
        with pytest.raises(ValueError, match="unknown weighting 'none'"):
            self_influence(attributed(), weighting="none")
        with pytest.raises(ValueError, match="no targets to choose damping='auto' by"):
            self_influence(attributed(), damping="auto")
        with pytest.raises(ValueError, match="model_ids is empty"):
            self_influence(attributed(), model_ids=[])
        with pytest.raises(ValueError, match="not finalized for weighting='identity'"):
            self_influence(attributed(), weighting="identity")

    def test_harmfulness_is_minus_the_mean_over_targets(self, monkeypatch):
        scores = np.random.default_rng(0).normal(size=(50, 7))
        np.testing.assert_allclose(harmfulness(scores), -scores.mean(axis=1))
        monkeypatch.setattr("trak.evaluation.self_influence._ROWS_AT_ONCE", 8)
        np.testing.assert_allclose(harmfulness(scores), -scores.mean(axis=1))
        with pytest.raises(ValueError, match="scores must be finite"):
            harmfulness(np.full((2, 2), np.inf))


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
        with pytest.raises(ValueError, match="relevant of target 1 has 5, expected 0 to 4"):
            retrieval(scores, [[0], [5]], k=1)
        with pytest.raises(ValueError, match="k must be between 1 and 5, got 10"):
            retrieval(scores, [[0], [1]])
        with pytest.raises(ValueError, match="scores of target 0 must be finite"):
            retrieval(scores * np.nan, [[0], [1]], k=1)


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
