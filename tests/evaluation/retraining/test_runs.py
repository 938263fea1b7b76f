"""Random subsets and training seeds are pure functions."""

import numpy as np
import pytest
import torch
from retraining_case import Counting, N, plain_numbers, seed_everything
from torch import nn

from trak.evaluation import TrainingRun
from trak.evaluation.retraining import random_subset, training_seed

GOLDEN_SUBSET = [5, 6, 8, 9, 10, 11]


GOLDEN_SEEDS = [2020180784, 2408498293, 4047114386, 2186825665]


class TestRandomness:
    """Subsets and seeds are pure functions."""

    def test_subsets_depend_on_seed_number_size_and_fraction(self):
        first = random_subset(0, 0, 1000, 0.5)
        for other in ((1, 0, 1000, 0.5), (0, 1, 1000, 0.5), (0, 0, 1001, 0.5)):
            common = len(np.intersect1d(first, random_subset(*other)))
            assert 190 < common < 310
        assert len(random_subset(0, 0, 1000, 0.3)) == 300
        np.testing.assert_array_equal(first, random_subset(0, 0, 1000, 0.5))
        assert (np.diff(first) > 0).all()
        assert first.dtype == np.int64

    def test_subsets_stay_what_they_are_in_stores_made_before(self):
        assert random_subset(0, 0, 12, 0.5).tolist() == GOLDEN_SUBSET
        assert [training_seed(0, i, s) for i in (0, 1) for s in (0, 1)] == GOLDEN_SEEDS

    def test_every_example_is_in_half_of_the_subsets_and_every_pair_in_a_quarter(self):
        masks = np.zeros((4000, 20))
        for i, mask in enumerate(masks):
            mask[random_subset(7, i, 20, 0.5)] = 1
        assert np.abs(masks.mean(axis=0) - 0.5).max() < 0.04
        pairs = (masks.T @ masks / len(masks))[~np.eye(20, dtype=bool)]
        assert np.abs(pairs - 10 * 9 / (20 * 19)).max() < 0.04

    def test_training_seeds_are_all_different_and_fit_every_generator(self):
        seeds = [training_seed(5, i, s) for i in range(2000) for s in range(20)]
        assert len(set(seeds)) == len(seeds)
        assert min(seeds) >= 0
        assert max(seeds) < 2**32
        assert np.mean(seeds) == pytest.approx(2**31, rel=0.02)
        assert training_seed(6, 0, 0) != training_seed(5, 0, 0)

    def test_more_than_there_are_training_seeds_for_is_refused(self):
        with pytest.raises(ValueError, match="at most 1,048,576 subsets with 4,096 seeds"):
            training_seed(0, 2**20, 0)
        with pytest.raises(ValueError, match="got subset 0 with seed 4096"):
            training_seed(0, 0, 4096)

    def test_a_train_that_forgets_to_seed_is_repeatable_and_leaves_the_callers_generators(self, call, tmp_path):
        def forgetful(indices, seed):
            model = nn.Linear(3, 2)
            with torch.no_grad():
                model.bias += sum(plain_numbers())
            return model

        seed_everything()
        expected = [*plain_numbers(), *torch.rand(3)]
        seed_everything()
        first = call(forgetful)
        assert [*plain_numbers(), *torch.rand(3)] == expected
        np.testing.assert_array_equal(call(forgetful, save_dir=tmp_path / "again").outputs, first.outputs)


@pytest.mark.parametrize(
    "run, error, message",
    [
        (([], 0), ValueError, r"run 1: expected the indices of one training example or more, got shape \(0,\)"),
        (([[1]], 0), ValueError, r"got shape \(1, 1\)"),
        (([0, N], 0), ValueError, "run 1: indices must be between 0 and 23, got 24"),
        (([-1, 2], 0), ValueError, "indices must be between 0 and 23, got -1"),
        (([3, 1, 3], 0), ValueError, "indices must be distinct, got 3 more than once"),
        ((np.ones(N, bool), 0), TypeError, r"indices must be integers, got bool; pass np.flatnonzero\(mask\)"),
        (([1], -1), ValueError, "run 1: the training seed must be an integer of 0 or more, got -1"),
        (([1], 2**32), ValueError, r"less than 2\*\*32, got 4294967296"),
        (([1], 0.5), ValueError, "got 0.5"),
        ([1], TypeError, r"run 1 must be \(indices, seed\)"),
        (TrainingRun([99], 0, "mine"), ValueError, "mine: indices must be between 0 and 23, got 99"),
    ],
)
def test_bad_runs_are_refused_by_name(run_on, run, error, message):
    train = Counting()
    with pytest.raises(error, match=message):
        run_on([([0], 0), run], train)
    assert not train.seen


def test_no_runs_are_refused(run_on):
    with pytest.raises(ValueError, match="runs is empty"):
        run_on([])
