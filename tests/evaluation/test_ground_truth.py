"""Ground truths: models retrained on random subsets, and parts of them."""

import shutil

import numpy as np
import pytest
from retraining_case import BATCHES, TARGETS, Counting, N, X, Y, outputs_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trak
from trak.evaluation import GroundTruth, lds
from trak.evaluation.retraining import subset_runs, training_seed


def test_outputs_are_those_of_a_loop_over_subsets_and_seeds(call):
    found = call(seed=3)
    assert found.masks.shape == (5, N)
    assert (found.masks.sum(axis=1) == N // 2).all()
    for i, mask in enumerate(found.masks):
        for s in range(2):
            outputs, correct = outputs_of(np.flatnonzero(mask), training_seed(3, i, s))
            np.testing.assert_allclose(found.outputs[i, s], outputs, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(found.correct[i, s], correct)
    assert found.outputs.dtype == np.float64
    assert found.correct.dtype == bool
    assert (found.seconds > 0).all()


def test_more_subsets_and_seeds_extend_what_is_there(call, tmp_path):
    small, train = call(), Counting()
    large = call(train, subsets=7, seeds=3)
    assert len(train.seen) == 7 * 3 - 5 * 2
    np.testing.assert_array_equal(large.masks[:5], small.masks)
    np.testing.assert_array_equal(large.outputs[:5, :2], small.outputs)
    np.testing.assert_array_equal(large.seconds[:5, :2], small.seconds)
    np.testing.assert_array_equal(large.outputs, call(subsets=7, seeds=3, save_dir=tmp_path / "at once").outputs)
    again = call(train)
    np.testing.assert_array_equal(again.outputs, small.outputs)
    assert len(train.seen) == 7 * 3 - 5 * 2


def test_opened_again_it_is_what_was_made(call, tmp_path):
    made, opened = call(subsets=4), GroundTruth.open(tmp_path / "truth")
    for name in ("masks", "outputs", "correct", "seconds"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(made, name))
    assert GroundTruth.open(tmp_path / "truth", subsets=2, seeds=1).outputs.shape == (2, 1, TARGETS)
    with pytest.raises(
        ValueError, match=r"4 of 12 models of 6 subsets × 2 seeds are missing .*retrain again.*subsets=4$"
    ):
        GroundTruth.open(tmp_path / "truth", subsets=6)
    shutil.rmtree(tmp_path / "truth" / "models" / subset_runs(0, N, 0.5, 1, 1)[0].key())
    with pytest.raises(
        ValueError, match=r"1 of 8 models of 4 subsets × 2 seeds are missing .*; call retrain again to go on$"
    ):
        GroundTruth.open(tmp_path / "truth")
    with pytest.raises(FileNotFoundError, match="no store of retrained models at"):
        GroundTruth.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"config": {"lr": 0.2, "layers": (3, 4)}}, r"config lr=0\.1, but config lr=0\.2 was asked for"),
        ({"config": None}, r"config lr=0\.1, but config lr=None"),
        ({"train_set_size": N - 1}, "train_set_size=24, but train_set_size=23"),
        ({"fraction": 0.25}, r"fraction=0\.5, but fraction=0\.25"),
        ({"seed": 1}, "seed=0, but seed=1"),
        ({"targets": BATCHES[:1]}, "num_targets=7, but num_targets=4"),
        ({"targets": BATCHES[::-1]}, "targets_digest='[0-9a-f]+', but targets_digest='[0-9a-f]+'"),
        ({"task": trak.tasks.ImageClassification(temperature=2)}, r"task settings temperature=1\.0, but .*=2\.0"),
        ({"task": "text_classification"}, "task name='image_classification', but task name='text_classification'"),
    ],
)
def test_another_configuration_is_refused_naming_both(call, change, message):
    before, train = call(), Counting()
    with pytest.raises(ValueError, match=message + ".*another save_dir"):
        call(train, **change)
    assert not train.seen
    np.testing.assert_array_equal(call().outputs, before.outputs)


def test_targets_batched_otherwise_are_the_same_targets(call):
    train, loader = Counting(), DataLoader(TensorDataset(X[N:], Y[N:]), batch_size=3)
    before = call()
    np.testing.assert_array_equal(call(train, targets=loader).outputs, before.outputs)
    assert not train.seen


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"fraction": 1.0}, ValueError, "fraction must be between 0 and 1 and leave some of the 24"),
        ({"fraction": 0.01}, ValueError, "leave some of the 24 training examples in and some out, got 0.01"),
        ({"subsets": 0}, ValueError, "subsets must be an integer of 1 or more, got 0"),
        ({"seeds": 1.5}, ValueError, "seeds must be an integer of 1 or more, got 1.5"),
        ({"seed": -1}, ValueError, "seed must be an integer of 0 or more, got -1"),
        ({"jobs": 0}, ValueError, "jobs must be an integer of 1 or more, got 0"),
        ({"backend": "dask"}, ValueError, "unknown backend 'dask': use one of loky, ray"),
        ({"config": {"model": nn.Linear}}, TypeError, "config must hold strings, finite numbers"),
        ({"config": [1]}, TypeError, "config must be a mapping that describes training, got list"),
        ({"train": None}, TypeError, r"train must be a function of \(indices, seed\), got NoneType"),
        ({"targets": iter(BATCHES)}, TypeError, "targets is an iterator"),
        ({"targets": DataLoader(TensorDataset(X, Y), shuffle=True)}, ValueError, "use shuffle=False"),
        (
            {"targets": TensorDataset(X, Y)},
            TypeError,
            r"data set .*TensorDataset\); pass DataLoader\(targets, batch_size=32\), or, of texts",
        ),
        ({"task": "images"}, ValueError, "unknown task 'images'"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_stored(call, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        call(**change)
    assert not (tmp_path / "truth").exists()


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

    def test_parts_share_no_target_and_no_subset_and_make_up_the_whole(self, truth, whole):
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
        with pytest.raises(ValueError, match="subsets must be between 0 and 59, got 60"):
            whole.select(subsets=[60])
        with pytest.raises(ValueError, match="targets must be distinct, got 2 more than once"):
            whole.select(targets=[2, 2])
        with pytest.raises(ValueError, match="targets is empty"):
            whole.select(targets=[])
        with pytest.raises(TypeError, match="targets must be integers"):
            whole.select(targets=[0.5])
        with pytest.raises(ValueError, match="can't split 1 target"):
            whole.select([0]).split()
        with pytest.raises(ValueError, match="fraction must be between 0 and 1, got 1"):
            whole.split(fraction=1)
