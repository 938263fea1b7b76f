"""The linear datamodeling score, its interval and its p-value, on inputs with a known answer."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from retraining_case import (
    BATCHES,
    N,
    X,
    Y,
    logistic,
)
from scipy.stats import spearmanr
from torch.utils.data import DataLoader, TensorDataset

import trak
from trak.evaluation import (
    GroundTruth,
    lds,
    retrain,
)


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


def test_anything_with_scores_counts_as_scores(truth):
    scores, masks, outputs = truth
    expected = lds(scores, masks, outputs).per_target
    for given in (Scored(scores), torch.from_numpy(scores), scores.tolist()):
        np.testing.assert_array_equal(lds(given, masks, outputs).per_target, expected)
    np.testing.assert_array_equal(lds(scores, masks.astype(int), outputs.tolist()).per_target, expected)


def test_scores_are_summed_the_same_in_blocks(truth, monkeypatch):
    expected = lds(*truth).per_target
    monkeypatch.setattr("trak.evaluation.validation._ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(lds(*truth).per_target, expected)


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


@pytest.mark.parametrize("size", [2, 100])
def test_scores_of_other_targets_than_the_models_were_measured_on_are_warned_of(call, tmp_path, size):
    images, labels = (torch.cat(parts) for parts in zip(*BATCHES, strict=True))
    truth, model = call(), logistic(np.arange(N), 0)
    for turned in (False, True):
        batch = (images.flip(0), labels.flip(0)) if turned else (images, labels)
        found = trak.attribute(
            model, "image_classification", model.state_dict(), [(X[:N], Y[:N])],
            DataLoader(TensorDataset(*batch), size), tmp_path / f"scores{turned}", proj_dim=8, progress=False,
        )  # fmt: skip
        for part in (truth, truth.select(targets=[0]), GroundTruth.open(tmp_path / "truth")):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                lds(found, part, resamples=10, permutations=10)
            assert (
                any("other data than those that the models were measured on" in str(w.message) for w in caught)
                == turned
            )


def test_a_training_function_that_ignores_its_seed_is_noticed():
    rng = np.random.default_rng(0)
    masks, outputs = rng.random((9, 30)) < 0.5, rng.normal(size=(9, 1, 4))
    scores = rng.normal(size=(30, 4))
    for noise, warned in ((0, True), (0.1, False)):
        repeated = np.repeat(outputs, 2, axis=1)
        repeated[:, 1] += noise
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            lds(scores, masks, repeated, resamples=10, permutations=10)
        assert any("let train use its seed" in str(w.message) for w in caught) == warned
