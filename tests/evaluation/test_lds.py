"""The linear datamodeling score, its interval and its p-value, on inputs with a known answer."""

import importlib
import itertools

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from trak.evaluation import GroundTruth, lds, retrain
from trak.evaluation.statistics import Bootstrap, resampled_spearman, weighted_ranks


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 6))
    # Of one size: outputs that follow the size alone would reward scores that know nothing.
    masks = rng.permuted(np.arange(40) < np.full((60, 1), 20), axis=1)
    return scores, masks, (masks @ scores)[:, None, :] + 2 * rng.normal(size=(60, 3, 6))


class Scored:
    def __init__(self, scores):
        self.scores = scores


def one_step(x, y, noise):
    """Least squares by one step of gradient descent from a random start: linear in which examples are there."""

    def train(indices, seed):
        model = torch.nn.Linear(x.shape[1], 1, bias=False).double()
        start = noise * torch.randn(x.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            model.weight[0] = start + 0.1 * x[indices].T @ y[indices]
        return model

    return train


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_an_exact_datamodel_of_least_squares_reaches_the_noise_ceiling(tmp_path, noise):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((80, 12), (80,)))
    train_x, targets_x = x[:50], x[50:]
    scores = 0.1 * (y[:50, None] * (train_x @ targets_x.T)).numpy()
    truth = retrain(
        one_step(train_x, y[:50], noise), "regression", [(targets_x, y[50:])], train_set_size=50, save_dir=tmp_path,
        subsets=80, seeds=4, jobs=1, progress=False,
    )  # fmt: skip
    found = lds(scores, truth)
    if noise:
        assert 0.3 < found.noise_ceiling < 0.9
        assert found.mean == pytest.approx(found.noise_ceiling, abs=0.04)
    else:
        assert found.mean == pytest.approx(1)
        assert found.noise_ceiling == pytest.approx(1)
        assert found.interval == pytest.approx((1, 1))
    assert found.p_value == pytest.approx(1 / 10_001)


def test_each_target_equals_scipys_spearman(truth):
    scores, masks, outputs = truth
    expected = [spearmanr((masks @ scores)[:, t], outputs.mean(1)[:, t]).statistic for t in range(6)]
    np.testing.assert_allclose(lds(scores, masks, outputs).per_target, expected)


def test_ties_share_their_ranks_as_scipys(truth):
    scores, masks, outputs = truth
    scores, outputs = np.round(scores), np.round(outputs / 4)
    expected = [spearmanr((masks @ scores)[:, t], outputs.mean(1)[:, t]).statistic for t in range(6)]
    np.testing.assert_allclose(lds(scores, masks, outputs).per_target, expected)


def test_noise_ceiling_is_what_the_true_scores_reach():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(30, 200))
    masks = rng.random((300, 30)) < 0.5
    outputs = (masks @ scores)[:, None, :] + 3 * rng.normal(size=(300, 4, 200))
    found = lds(scores, masks, outputs, resamples=20)
    assert found.noise_ceiling == pytest.approx(found.mean, abs=0.02)
    assert np.isnan(lds(scores, masks, outputs[:, :1], resamples=20).noise_ceiling)


def test_permuted_scores_are_at_chance(truth):
    scores, masks, outputs = truth
    found = lds(np.random.default_rng(2).permutation(scores), masks, outputs)
    low, high = found.interval
    assert low < 0 < high
    assert found.p_value > 0.05


@pytest.mark.parametrize("constant", ["scores", "outputs"])
def test_constant_scores_and_constant_outputs_score_zero(truth, constant):
    scores, masks, outputs = truth
    found = lds(
        np.ones_like(scores) * (constant != "scores") * scores, masks, outputs * (constant != "outputs"), resamples=50
    )
    assert (found.per_target == 0).all()
    assert found.interval == (0, 0)
    assert found.p_value == 1
    assert (found.noise_ceiling == 0) == (constant == "outputs")


def test_p_values_of_chance_are_uniform():
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        masks = rng.random((20, 15)) < 0.5
        # Targets that depend on each other must not make the p-value too small.
        common = rng.normal(size=(20, 1, 1)) + 0.3 * rng.normal(size=(20, 1, 8))
        found.append(lds(rng.normal(size=(15, 1)).repeat(8, 1), masks, common, resamples=1, permutations=199).p_value)
    assert 0.01 < np.mean(np.array(found) <= 0.05) < 0.10
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)


def test_p_value_equals_the_share_of_all_permutations():
    rng = np.random.default_rng(3)
    scores, masks = rng.normal(size=(9, 3)), rng.random((6, 9)) < 0.5
    outputs = (masks @ scores)[:, None] + 3 * rng.normal(size=(6, 1, 3))

    def mean(order):
        pairs = [((masks @ scores)[list(order), t], outputs[:, 0, t]) for t in range(3)]
        return np.mean([spearmanr(*pair).statistic for pair in pairs])

    observed = mean(range(6))
    expected = np.mean([mean(order) >= observed - 1e-9 for order in itertools.permutations(range(6))])
    assert 0.01 < expected < 0.5
    assert lds(scores, masks, outputs, permutations=20_000).p_value == pytest.approx(expected, abs=0.012)


def test_the_interval_covers_the_score_of_a_large_sample():
    n, noise = 20, 3.0

    def sample(rng, subsets, targets):
        scores = rng.normal(size=(n, targets))
        masks = rng.random((subsets, n)) < 0.5
        known = scores + rng.normal(size=scores.shape)
        return known, masks, ((masks - 0.5) @ scores)[:, None] + noise * rng.normal(size=(subsets, 1, targets))

    rng = np.random.default_rng(4)
    large = lds(*sample(rng, 4000, 300), resamples=1, permutations=1).mean
    intervals = [lds(*sample(rng, 60, 12), resamples=200, permutations=1, seed=i).interval for i in range(100)]
    covered = np.mean([low <= large <= high for low, high in intervals])
    assert covered >= 0.88
    assert np.mean([high - low for low, high in intervals]) < 0.4


def test_interval_narrows_with_confidence_and_is_reproducible(truth):
    wide, narrow, again = lds(*truth), lds(*truth, confidence=0.5), lds(*truth)
    assert wide.interval.low < narrow.interval.low < wide.mean < narrow.interval.high < wide.interval.high
    assert (wide.interval, wide.p_value) == (again.interval, again.p_value)
    assert lds(*truth, seed=1).interval != wide.interval


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


def test_anything_with_scores_counts_as_scores(truth):
    scores, masks, outputs = truth
    expected = lds(scores, masks, outputs).per_target
    for given in (Scored(scores), torch.from_numpy(scores), scores.tolist()):
        np.testing.assert_array_equal(lds(given, masks, outputs).per_target, expected)
    np.testing.assert_array_equal(lds(scores, masks.astype(int), outputs.tolist()).per_target, expected)


def test_scores_are_summed_the_same_in_blocks(truth, monkeypatch):
    expected = lds(*truth).per_target
    monkeypatch.setattr(importlib.import_module("trak.evaluation.lds"), "_ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(lds(*truth).per_target, expected)


class TestGroundTruth:
    """Arrays that go together, and parts of them."""

    @pytest.fixture
    def whole(self, truth):
        _, masks, outputs = truth
        return GroundTruth(masks, outputs, correct=outputs > 0, seconds=np.arange(180.0).reshape(60, 3))

    def test_in_place_of_masks_and_outputs_it_gives_the_same(self, truth, whole):
        scores, masks, outputs = truth
        one, two = lds(scores, whole), lds(scores, masks, outputs)
        assert str(one) == str(two)
        np.testing.assert_array_equal(one.per_target_intervals, two.per_target_intervals)

    def test_halves_share_no_target_and_no_subset_and_make_up_the_whole(self, truth, whole):
        first, second = whole.split(seed=3)
        assert sorted([*first.targets, *second.targets]) == list(range(6))
        assert len(first.targets) == 3
        rows = {mask.tobytes() for mask in first.masks}, {mask.tobytes() for mask in second.masks}
        assert rows[0] | rows[1] == {mask.tobytes() for mask in whole.masks}
        assert not rows[0] & rows[1]
        assert len(first.masks) == 30

    def test_split_depends_on_its_seed_alone(self, whole):
        assert whole.split(1)[0].targets.tolist() == whole.split(1)[0].targets.tolist()
        assert len({tuple(whole.split(seed)[0].targets) for seed in range(20)}) > 5

    def test_a_part_scores_its_own_targets_and_subsets(self, truth, whole):
        scores, masks, outputs = truth
        part = whole.select(targets=[4, 1], subsets=range(10, 40))
        expected = lds(scores[:, [4, 1]], masks[10:40], outputs[10:40][:, :, [4, 1]])
        for found in (lds(scores, part), lds(scores, whole, targets=[4, 1], subsets=np.arange(10, 40))):
            np.testing.assert_array_equal(found.per_target, expected.per_target)
            assert found.targets.tolist() == [4, 1]
            assert (found.subsets, found.seeds) == (30, 3)

    def test_a_part_of_a_part_keeps_the_numbers_of_the_whole(self, whole):
        assert whole.select([5, 3, 2]).select([0, 2]).targets.tolist() == [5, 2]
        np.testing.assert_array_equal(whole.select([5, 3], [7]).correct, whole.outputs[[7]][:, :, [5, 3]] > 0)
        np.testing.assert_array_equal(whole.select(subsets=[7]).seconds, [[21, 22, 23]])

    def test_scores_of_other_targets_than_the_whole_are_refused(self, truth, whole):
        part = whole.select([0, 1])
        with pytest.raises(ValueError, match=r"got \(40, 2\), \(60, 40\) and \(60, 3, 2\) of 6 targets"):
            lds(truth[0][:, :2], part)

    def test_its_arrays_can_not_be_written_to_and_the_callers_still_can(self, truth, whole):
        for name in ("masks", "outputs", "correct", "seconds", "targets"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(whole, name)[0] = 0
        truth[2][0] = 0
        with pytest.raises(AttributeError):
            whole.outputs = None

    def test_says_what_it_holds(self, whole):
        assert repr(whole) == "GroundTruth(60 subsets of 20 of 40 training examples × 3 seeds, 6 targets)"
        assert repr(whole.select([1])).endswith("1 of 6 targets)")

    def test_what_does_not_fit_is_refused(self, truth, whole):
        _, masks, outputs = truth
        with pytest.raises(ValueError, match=r"got \(59, 40\) and \(60, 3, 6\)"):
            GroundTruth(masks[1:], outputs)
        with pytest.raises(ValueError, match="masks must be boolean, or 0 and 1"):
            GroundTruth(np.arange(60 * 40).reshape(60, 40), outputs)
        with pytest.raises(ValueError, match=r"expected correct of shape \(60, 3, 6\), got \(60,\)"):
            GroundTruth(masks, outputs, correct=np.ones(60))
        with pytest.raises(ValueError, match=r"outputs must be finite, got nan at \(2, 1, 0\)"):
            GroundTruth(
                masks, np.where(np.indices(outputs.shape)[0] * 2 + np.indices(outputs.shape)[1] == 5, np.nan, outputs)
            )
        with pytest.raises(ValueError, match="subsets has 60, expected 0 to 59"):
            whole.select(subsets=[60])
        with pytest.raises(ValueError, match="targets has 2 more than once"):
            whole.select(targets=[2, 2])
        with pytest.raises(ValueError, match="targets is empty"):
            whole.select(targets=[])
        with pytest.raises(TypeError, match="targets must be integers"):
            whole.select(targets=[0.5])
        with pytest.raises(ValueError, match="can't split 1 target"):
            whole.select([0]).split()
        with pytest.raises(ValueError, match="fraction must be between 0 and 1, got 1"):
            whole.split(fraction=1)


def test_result_prints_as_a_line(truth):
    printed = str(lds(*truth))
    assert printed.startswith("LDS 0.")
    for part in (
        "(95 % interval 0.",
        "6 targets, 60 subsets × 3 seeds",
        "p = 0.0001 against chance",
        "noise ceiling 0.",
    ):
        assert part in printed
    assert "no noise ceiling" in str(lds(truth[0], truth[1], truth[2][:, :1]))
    assert "\n" not in printed


def test_bad_input_is_refused(truth):
    scores, masks, outputs = truth
    with pytest.raises(ValueError, match=r"got \(60, 40\) and \(60, 6\)"):
        lds(scores, masks, outputs[:, 0])
    with pytest.raises(ValueError, match=r"got \(39, 6\), \(60, 40\) and \(60, 3, 6\)"):
        lds(scores[1:], masks, outputs)
    for few in (1, 2):
        with pytest.raises(ValueError, match=f"3 subsets or more, got {few}"):
            lds(scores, masks[:few], outputs[:few])
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="scores must be finite, got"):
            lds(np.full_like(scores, bad), masks, outputs)
        with pytest.raises(ValueError, match="outputs must be finite, got"):
            lds(scores, masks, np.full_like(outputs, bad))
    with pytest.raises(ValueError, match="outputs is missing"):
        lds(scores, masks)
    with pytest.raises(ValueError, match="leave outputs out"):
        lds(scores, GroundTruth(masks, outputs), outputs)
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 95"):
        lds(scores, masks, outputs, confidence=95)
    for name in ("resamples", "permutations"):
        with pytest.raises(ValueError, match=f"{name} must be an integer of 1 or more, got 0"):
            lds(scores, masks, outputs, **{name: 0})
    with pytest.raises(TypeError, match="scores must be real numbers"):
        lds(scores.astype(str), masks, outputs)
