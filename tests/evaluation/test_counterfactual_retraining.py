"""Counterfactuals against a loop that removes, trains and compares."""

import re

import numpy as np
import pytest
import torch
import zarr

from trak.evaluation import counterfactuals, retrain_on
from trak.evaluation.retraining import random_subset, training_seed

N, TARGETS, SEEDS, SETS = 40, 9, 3, 2
K = [2, 8, 20]


class Problem:
    """One step of least squares from a random start: what an example does to each target is known exactly."""

    def __init__(self, labels):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(N + TARGETS, 6, generator=generator, dtype=torch.float64)
        self.x, self.y = x[:N], (x[:N, 0] + 0.5 * torch.randn(N, generator=generator) > 0).double() * 2 - 1
        self.targets = x[N:]
        noisy = x[N:, 0] + 1.5 * torch.randn(TARGETS, generator=generator)
        self.labels = (noisy > 0).long() if labels else torch.zeros(TARGETS)
        self.batches = [(self.targets, self.labels)]
        self.sign = self.labels * 2 - 1 if labels else torch.ones(TARGETS)
        # What example i adds to the output of target t.
        self.scores = (0.1 * self.y[:, None] * (self.x @ self.targets.T) * self.sign).numpy()
        self.task = "image_classification" if labels else "regression"

    def weight(self, indices, seed):
        start = 0.02 * torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return start + 0.1 * self.x[indices].T @ self.y[indices]

    def train(self, indices, seed):
        outputs = 2 if self.task == "image_classification" else 1
        model = torch.nn.Linear(6, outputs, bias=False).double()
        with torch.no_grad():
            model.weight.zero_()
            model.weight[-1] = self.weight(indices, seed)
        return model

    def output(self, removed, seed):
        kept = np.setdiff1d(np.arange(N), removed)
        return (self.targets @ self.weight(kept, seed) * self.sign).numpy()


def expected(problem, order, sizes, seed):
    """(drops, right before, right after) of removing the first ones of each target's order, by a loop."""
    seeds = [training_seed(seed, 0, s) for s in range(SEEDS)]
    before = np.array([problem.output([], s) for s in seeds])
    drops, right = np.empty((len(sizes), TARGETS)), np.empty((len(sizes), TARGETS), bool)
    for a, size in enumerate(sizes):
        for t in range(TARGETS):
            after = np.array([problem.output(order(size, t), s)[t] for s in seeds])
            drops[a, t] = before[:, t].mean() - after.mean()
            right[a, t] = (after > 0).sum() > SEEDS / 2
    return drops, (before > 0).sum(axis=0) > SEEDS / 2, right


@pytest.fixture(scope="module")
def problem():
    return Problem(labels=True)


@pytest.fixture(scope="module")
def methods(problem):
    return {"exact": problem.scores, "backwards": -problem.scores}


@pytest.fixture(scope="module")
def call(problem, methods):
    def call(problem=problem, methods=methods, **options):
        options = {
            "train_set_size": N, "save_dir": zarr.storage.MemoryStore(), "k": K, "seeds": SEEDS, "random_sets": SETS,
            "jobs": 1, "progress": False, "seed": 4, **options,
        }  # fmt: skip
        return counterfactuals(methods, problem.train, problem.task, problem.batches, **options)

    return call


@pytest.fixture(scope="module")
def found(call):
    return call()


def test_drops_and_flips_equal_a_loop_over_targets_sizes_and_seeds(problem, methods, found):
    assert found.methods == ("exact", "backwards", "random")
    assert found.k == tuple(K)
    for row, scores in enumerate(methods.values()):
        drops, before, after = expected(problem, lambda k, t, s=scores: np.argsort(-s[:, t])[:k], K, 4)
        np.testing.assert_allclose(found.drops[row], drops, atol=1e-12)
        assert 0 < before.sum() < TARGETS
        for t in range(TARGETS):
            flips = np.where(before[t], ~after[:, t], np.nan)
            np.testing.assert_array_equal(found.flips[row, :, t], flips)
        np.testing.assert_allclose(found.flip_shares[row], (~after[:, before]).mean(axis=1))
    np.testing.assert_allclose(found.mean_drops[0], [np.sort(problem.scores, axis=0)[-k:].sum(0).mean() for k in K])


def test_random_removal_is_the_mean_over_random_sets(problem, found):
    each = []
    for i in range(SETS):
        sets = {k: random_subset(4, i, N, k / N) for k in K}
        assert [len(sets[k]) for k in K] == K
        each.append(expected(problem, lambda k, t, sets=sets: sets[k], K, 4))
    np.testing.assert_allclose(found.drops[2], np.mean([drops for drops, _, _ in each], axis=0), atol=1e-12)
    shares = np.mean([(~after)[:, before] for _, before, after in each], axis=0).mean(axis=1)
    np.testing.assert_allclose(found.flip_shares[2], shares)


def test_what_a_method_calls_helpful_matters_more_than_chance(found):
    exact, backwards, random = found.mean_drops
    assert (exact > random).all()
    assert (backwards < random).all()
    assert (np.diff(exact) > 0).all()


def test_intervals_contain_their_means_and_follow_the_confidence(call, found):
    assert (found.drop_intervals[..., 0] < found.mean_drops).all()
    assert (found.mean_drops < found.drop_intervals[..., 1]).all()
    assert (found.flip_intervals[..., 0] <= found.flip_shares).all()
    assert (found.flip_shares <= found.flip_intervals[..., 1]).all()
    narrow = call(confidence=0.5)
    widths = [np.diff(result.drop_intervals).mean() for result in (narrow, found)]
    assert 0.25 < widths[0] / widths[1] < 0.45  # 0.67 / 1.96 for a normal distribution


def test_chosen_targets_alone_cost_models(problem, methods, found):
    trained, store = [], zarr.storage.MemoryStore()

    def train(indices, seed):
        trained.append(len(indices))
        return problem.train(indices, seed)

    options = {"train_set_size": N, "save_dir": store, "seeds": SEEDS, "jobs": 1, "progress": False, "seed": 4}
    few = counterfactuals(
        methods, train, problem.task, problem.batches, target_indices=[7, 2], k=K, random_sets=SETS, **options
    )
    np.testing.assert_array_equal(few.targets, [7, 2])
    np.testing.assert_allclose(few.drops, found.drops[:, :, [7, 2]])
    assert len(trained) == SEEDS * (1 + 2 * 3 * 2 + 3 * SETS)
    assert set(trained) == {N, *(N - k for k in K)}
    more = counterfactuals(
        methods, train, problem.task, problem.batches, target_indices=[7, 2], k=[*K, 21], random_sets=SETS, **options
    )
    assert len(trained) == SEEDS * (1 + 2 * 4 * 2 + 4 * SETS)
    np.testing.assert_array_equal(more.drops[:, :3], few.drops)
    retrain_on(
        [(range(N), training_seed(4, 0, 1))], train, problem.task, problem.batches, train_set_size=N, save_dir=store
    )
    assert len(trained) == SEEDS * (1 + 2 * 4 * 2 + 4 * SETS)


def test_equal_scores_are_taken_in_order(call, problem):
    found = call(methods={"none": np.zeros((N, TARGETS))}, k=5)
    drops, *_ = expected(problem, lambda k, t: np.arange(k), [5], 4)
    np.testing.assert_allclose(found.drops[0], drops, atol=1e-12)


def test_paired_differences_are_the_mean_differences_on_the_same_targets(found):
    pytest.importorskip("pandas")
    method, *others = found.methods
    table = found.paired_differences(method)
    assert [*table["other"]] == [other for other in others for _ in found.k]
    for i, other in enumerate(others):
        rows = table[table["other"] == other]
        differences = found.drops[0] - found.drops[1 + i]
        assert [*rows["k"]] == [*found.k]
        np.testing.assert_allclose(rows["difference"], differences.mean(axis=-1))
        resampled = np.random.default_rng(1).choice(differences, (4000, differences.shape[-1]), axis=1).mean(axis=-1)
        spread = np.quantile(resampled, [0.025, 0.975], axis=1)
        tolerance = 0.2 * (spread[1] - spread[0]).max() + 1e-9
        np.testing.assert_allclose([rows["difference_low"], rows["difference_high"]], spread, atol=tolerance)
    with pytest.raises(ValueError, match="unknown method 'nobody'"):
        found.paired_differences("nobody")


def test_a_task_without_right_and_wrong_has_drops_alone(call):
    regression = Problem(labels=False)
    found = call(regression, {"exact": regression.scores}, random_sets=1)
    assert found.flips is found.flip_shares is found.flip_intervals is None
    np.testing.assert_allclose(
        found.mean_drops[0], [np.sort(regression.scores, axis=0)[-k:].sum(axis=0).mean() for k in K], rtol=1e-9
    )
    assert "flip" not in str(found)
    with pytest.raises(ValueError, match="what must be 'drops', or 'flips' if the task tells right from wrong"):
        found.plot(what="flips")


def test_one_target_has_no_interval(call):
    found = call(target_indices=[0], k=2)
    assert np.isnan(found.drop_intervals).all()
    assert "not known" in str(found)


def test_no_target_that_was_right_has_no_share_that_flips(call, problem, found):
    wrong = np.flatnonzero(np.isnan(found.flips[0, 0]))
    none = call(target_indices=wrong, k=2)
    assert np.isnan(none.flip_shares).all()


def test_result_prints_as_a_line(found):
    printed = str(found)
    head = r"Drop of the output without the top 20 \(mean of 9 targets, 3 seeds, 95 % interval\): exact "
    assert re.match(head, printed)
    assert re.search(r"; random -?\d\.\d{3} \(-?\d\.\d{3} to \d\.\d{3}\), \d+% flip$", printed)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"methods": {}}, ValueError, "methods must be scores by name"),
        ({"methods": np.zeros((N, TARGETS))}, ValueError, "methods must be scores by name"),
        ({"methods": {"random": np.zeros((N, TARGETS))}}, ValueError, "none called 'random'"),
        ({"methods": {"a": np.zeros((N, 2))}}, ValueError, r"of shape \(40, 9\) from 'a', got \(40, 2\)"),
        ({"methods": {"a": np.full((N, TARGETS), np.nan)}}, ValueError, "the scores of 'a' must be finite"),
        ({"k": []}, ValueError, "k is empty"),
        ({"k": [40]}, ValueError, "k must be between 1 and 39, got 40"),
        ({"k": [0.5]}, TypeError, "k must be an integer or several, got 0.5"),
        ({"target_indices": [9]}, ValueError, "target_indices must be between 0 and 8, got 9"),
        ({"seeds": 0}, ValueError, "seeds must be an integer of 1 or more"),
        ({"random_sets": 0}, ValueError, "random_sets must be an integer of 1 or more"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(call, change, error, message):
    problem = Problem(labels=True)
    problem.train = None.__class__  # not reached
    with pytest.raises(error, match=message):
        call(problem, **change)
