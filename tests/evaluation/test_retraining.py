"""Models trained again: which, with what seeds, by whom, and what is kept of them."""

import os
import random
import shutil
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch
import zarr
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trak
from trak.evaluation import GroundTruth, RetrainingError, TrainingRun, lds, retrain, retrain_on
from trak.evaluation.retraining import random_subset, subset_runs, training_seed

N, TARGETS = 24, 7
GOLDEN_SUBSET = [5, 6, 8, 9, 10, 11]
GOLDEN_SEEDS = [2020180784, 2408498293, 4047114386, 2186825665]
CONFIG = {"lr": 0.1, "layers": (3, 4)}


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N + TARGETS, 3, generator=generator)
    y = (x.sum(1) + torch.randn(N + TARGETS, generator=generator) > 0).long()
    return x, y


X, Y = data()
BATCHES = [(X[N : N + 4], Y[N : N + 4]), (X[N + 4 :], Y[N + 4 :])]


def logistic(indices, seed):
    """Logistic regression by a few steps from a random start, with dropout."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[indices]), Y[indices]).backward()
        optimizer.step()
    return model


def outputs_of(indices, seed):
    """The slow truth of `logistic`: margins of the targets."""
    torch.set_num_threads(1)
    model = logistic(np.sort(indices), seed).eval()
    logits = torch.cat([model(x) for x, _ in BATCHES]).detach()
    other = logits.gather(1, 1 - Y[N:, None])
    return (logits.gather(1, Y[N:, None]) - other).squeeze(1).double().numpy(), (logits.argmax(1) == Y[N:]).numpy()


def seed_everything():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002


def plain_numbers():
    return random.random(), np.random.rand()  # noqa: NPY002


@pytest.fixture
def call(tmp_path):
    def call(train=logistic, targets=BATCHES, task="image_classification", **options):
        options = {
            "train_set_size": N, "save_dir": tmp_path / "truth", "subsets": 5, "seeds": 2, "jobs": 1,
            "progress": False, "config": CONFIG, **options,
        }  # fmt: skip
        return retrain(train, task, targets, **options)

    return call


@pytest.fixture
def run_on(tmp_path):
    def run_on(runs, train=logistic, **options):
        options = {"train_set_size": N, "save_dir": tmp_path / "runs", "jobs": 1, "progress": False, **options}
        return retrain_on(runs, train, "image_classification", options.pop("targets", BATCHES), **options)

    return run_on


class Counting:
    """Counts the models trained, in this process."""

    def __init__(self, train=logistic):
        self.train, self.seen = train, []

    def __call__(self, indices, seed):
        self.seen.append((indices.tolist(), seed))
        return self.train(indices, seed)


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


def test_it_can_be_read_with_zarr_alone(call, tmp_path):
    found = call()
    group = zarr.open_group(tmp_path / "truth", mode="r")
    by_run = {array.attrs["run"]: array for _, array in group["models"].arrays()}
    np.testing.assert_array_equal(by_run["subset 3, seed 1"][0], found.outputs[3, 1])
    assert by_run["subset 3, seed 1"].attrs["seed"] == training_seed(0, 3, 1)
    assert dict(group["ground_truth"].attrs) == {"fraction": 0.5, "seed": 0, "subsets": 5, "seeds": 2}
    assert group.attrs["trak_retraining"]["config"] == {"lr": 0.1, "layers": [3, 4]}


def test_a_store_in_memory_works_like_a_directory(call):
    store = zarr.storage.MemoryStore()
    train = Counting()
    first, second = call(train, save_dir=store), call(train, save_dir=store)
    np.testing.assert_array_equal(first.outputs, second.outputs)
    assert len(train.seen) == 10


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


def test_a_feature_store_is_not_mistaken_for_retrained_models(call, tmp_path):
    model = nn.Linear(3, 2)
    trak.TRAKer(model, "image_classification", N, tmp_path / "truth", proj_dim=4, logging_level=30)
    with pytest.raises(ValueError, match="no store of retrained models; choose another save_dir"):
        call()


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


class TestTraining:
    """What `train` gets, and what becomes of what it returns."""

    def test_it_gets_sorted_indices_a_plain_seed_one_thread_and_gradients(self, run_on):
        seen = []

        def train(indices, seed):
            seen.append((indices.dtype, indices.tolist(), type(seed), seed, torch.get_num_threads()))
            assert torch.is_grad_enabled()
            indices[:] = 0  # its own copy
            return nn.Linear(3, 2)

        torch.set_num_threads(2)
        try:
            with torch.no_grad():
                run_on([([5, 1, 3], np.int64(9))], train)
                assert not torch.is_grad_enabled()
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)
        assert seen == [(np.dtype(np.int64), [1, 3, 5], int, 9, 1)]

    def test_outputs_are_taken_in_eval_mode_without_gradients(self, run_on):
        class Watching(nn.Linear):
            def forward(self, x):
                assert not self.training
                assert not torch.is_grad_enabled()
                return super().forward(x)

        run_on([([0], 0)], lambda indices, seed: Watching(3, 2).train())

    def test_the_same_run_is_trained_once_and_returned_wherever_it_is_asked_for(self, run_on):
        train = Counting()
        found = run_on([([3, 1], 5), ([1, 3], 5), ([1, 3], 6), ([1], 5)], train)
        assert train.seen == [([1, 3], 5), ([1, 3], 6), ([1], 5)]
        np.testing.assert_array_equal(found.outputs[0], found.outputs[1])
        for row, (indices, seed) in zip(found.outputs[1:], [([1, 3], 5), ([1, 3], 6), ([1], 5)], strict=True):
            np.testing.assert_allclose(row, outputs_of(indices, seed)[0], rtol=1e-5, atol=1e-6)
        run_on([([1], 5), ([2], 5)], train)
        assert train.seen[3:] == [([2], 5)]

    def test_a_ground_truth_and_other_runs_share_a_store(self, call, run_on, tmp_path):
        truth, train = call(), Counting()
        found = run_on(
            [(np.flatnonzero(truth.masks[1]), training_seed(0, 1, 1)), (range(N), 0)], train,
            save_dir=tmp_path / "truth", config=CONFIG,
        )  # fmt: skip
        np.testing.assert_array_equal(found.outputs[0], truth.outputs[1, 1])
        assert train.seen == [(list(range(N)), 0)]
        np.testing.assert_array_equal(GroundTruth.open(tmp_path / "truth").outputs, truth.outputs)

    def test_outputs_that_are_not_finite_name_the_model_and_the_target(self, call):
        def diverged(indices, seed):
            model = logistic(indices, seed)
            if seed == training_seed(0, 2, 0):
                nn.init.constant_(model[1].weight, float("nan"))
            return model

        with pytest.raises(RetrainingError, match=r"subset 2, seed 0 .* output for target 0 is nan, not finite; look"):
            call(diverged)

    def test_a_bad_label_is_named_and_not_called_divergence(self, run_on):
        with pytest.raises(RetrainingError, match="label out of range: 5 in row 1 of the batch"):
            run_on([([0], 0)], targets=[(X[:3], torch.tensor([0, 5, 1]))])

    def test_what_is_no_model_and_no_output_for_each_example_are_refused(self, run_on):
        with pytest.raises(RetrainingError, match=r"run 0 .* TypeError: train must return a torch.nn.Module, got dict"):
            run_on([([0], 0)], lambda indices, seed: {})

        class Mean(trak.tasks.Task):
            def output(self, model, batch):
                return model(batch[0]).mean()

        with pytest.raises(RetrainingError, match=r"Mean.output must return one number for each of the batch's 4"):
            retrain_on(
                [([0], 0)], logistic, Mean(), BATCHES, train_set_size=N, save_dir=zarr.storage.MemoryStore(), jobs=1
            )

    def test_right_and_wrong_are_the_tasks_to_tell(self, tmp_path):
        class Positive(trak.tasks.Task):
            def output(self, model, batch):
                return model(batch[0])[:, 0]

        def three(indices, seed):
            model = nn.Linear(3, 3)
            nn.init.zeros_(model.weight)
            model.bias.data = torch.tensor([1.0, 0.9, 0.8])
            return model

        def correct(task, targets):
            options = {"train_set_size": 3, "save_dir": zarr.storage.MemoryStore(), "jobs": 1, "progress": False}
            return retrain_on([([0], 0)], three, task, targets, **options).correct

        images = torch.zeros(3, 3)
        # The labelled class has the highest logit, and less than half of the probability.
        assert correct("image_classification", [(images, torch.arange(3))]).tolist() == [[True, False, False]]
        assert correct(Positive(), [(images, torch.arange(3))]).tolist() == [[True, True, True]]

        def line(indices, seed):
            return nn.Linear(3, 1)

        options = {"train_set_size": 3, "save_dir": zarr.storage.MemoryStore(), "jobs": 1, "progress": False}
        assert retrain_on([([0], 0)], line, "regression", [(images, torch.zeros(3))], **options).correct is None
        truth = retrain(line, "regression", [(images, torch.zeros(3))], subsets=3, **options)
        assert truth.correct is None

    def test_dict_batches_and_published_tasks_work(self, tmp_path):
        class Published:
            @staticmethod
            def get_output(model, weights, buffers, x, y):
                return torch.func.functional_call(model, (weights, buffers), x.unsqueeze(0))[0, y]

            @staticmethod
            def get_out_to_loss_grad(model, weights, buffers, batch):
                return torch.ones(len(batch[0]), 1)

        found = {}
        for name, task, targets in (
            ("dict", "image_classification", [{"x": X[:5], "y": Y[:5]}]),
            ("tuple", "image_classification", [(X[:5], Y[:5])]),
            ("published", Published, [(X[:5], Y[:5])]),
        ):
            options = {"train_set_size": N, "save_dir": tmp_path / name, "jobs": 1, "progress": False}
            found[name] = retrain_on([(range(N), 0)], logistic, task, targets, **options).outputs
        np.testing.assert_array_equal(found["dict"], found["tuple"])
        assert found["published"].shape == (1, 5)


class TestProcesses:
    """One or several."""

    def test_any_number_of_processes_gives_the_same_bits(self, call, tmp_path):
        def own(indices, seed):  # local, so that it has to be sent by value
            assert torch.get_num_threads() == 1
            return logistic(indices, seed)

        one, two = call(own), call(own, jobs=2, save_dir=tmp_path / "two")
        np.testing.assert_array_equal(one.outputs, two.outputs)
        np.testing.assert_array_equal(one.correct, two.correct)
        np.testing.assert_array_equal(one.masks, two.masks)

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_an_exception_names_the_run_and_what_is_finished_stays(self, call, jobs):
        bad = training_seed(0, 3, 1)

        def train(indices, seed):
            if seed == bad:
                raise KeyError("no such column")
            return logistic(indices, seed)

        pattern = (
            rf"on subset 3, seed 1 \(12 training examples, training seed {bad}\) failed: KeyError: 'no such column'\. "
        )
        with pytest.raises(RetrainingError, match=pattern + "[789] of 10 models are done") as caught:
            call(train, jobs=jobs)
        if jobs == 1:
            assert isinstance(caught.value.__cause__, KeyError)
        else:
            assert "In the other process" in caught.value.__notes__[0]
            assert "in train" in caught.value.__notes__[0]
        counting = Counting()
        call(counting)
        assert 1 <= len(counting.seen) <= 3
        assert bad in [seed for _, seed in counting.seen]

    def test_a_process_that_dies_is_a_plain_error_and_what_is_finished_stays(self, call, tmp_path):
        def train(indices, seed):
            if seed == training_seed(0, 4, 1):
                while len(list((tmp_path / "truth" / "models").glob("*/c/0/0"))) < 8:
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            return logistic(indices, seed)

        with pytest.raises(RetrainingError, match=r"a process died while it trained.*fewer jobs\. [89] of 10"):
            call(train, jobs=2)
        counting = Counting()
        call(counting)
        assert 1 <= len(counting.seen) <= 2


class TestStore:
    """What is kept of models."""

    def test_a_damaged_model_is_noticed_and_named(self, call, tmp_path):
        call()
        chunk = next((tmp_path / "truth" / "models").glob("*/c/0/0"))
        chunk.write_bytes(bytes(reversed(chunk.read_bytes())))
        with pytest.raises(ValueError, match=f"models/{chunk.parts[-4]} in .* is damaged .*delete it"):
            call()
        shutil.rmtree(chunk.parents[2])
        call()

    def test_a_directory_that_is_no_store_is_refused(self, call, tmp_path):
        call()
        (tmp_path / "truth" / "zarr.json").write_text("{")
        with pytest.raises(ValueError, match="can't be read as a zarr v3 group"):
            call()
        (tmp_path / "file").write_text("")
        with pytest.raises(NotADirectoryError, match="is no directory; choose another"):
            call(save_dir=tmp_path / "file")

    def test_a_store_without_ground_truth_says_so(self, run_on, tmp_path):
        run_on([([0], 0)])
        with pytest.raises(ValueError, match="holds retrained models, but no ground truth; make one with retrain"):
            GroundTruth.open(tmp_path / "runs")

    def test_what_a_kill_leaves_half_written_is_removed_and_done_again(self, call, tmp_path):
        expected = call().outputs
        models = sorted((tmp_path / "truth" / "models").glob("*/c/0/0"))
        models[0].unlink()  # metadata without contents
        folders = tmp_path / "truth" / "models", tmp_path / "truth"
        leftovers = [
            models[0].with_name(f"0.{'0f' * 16}.partial"),
            *(at / f"zarr.{'0f' * 16}.partial" for at in folders),
        ]
        own = tmp_path / "truth" / "download.partial"
        for leftover in (*leftovers, own):
            leftover.write_bytes(b"half")
        train = Counting()
        np.testing.assert_array_equal(call(train).outputs, expected)
        assert len(train.seen) == 1
        assert not any(leftover.exists() for leftover in leftovers)
        assert own.exists()


def test_without_ray_installed_the_error_says_what_to_install(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'trak-attribution\[ray\]'"):
        call(backend="ray")


def test_one_process_needs_no_joblib_and_several_say_what_to_install(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "joblib", None)
    call()
    with pytest.raises(ImportError, match=r"pip install 'trak-attribution\[evaluation\]'"):
        call(jobs=2, save_dir=tmp_path / "two")


def test_what_can_not_be_sent_is_refused_with_the_cure(call):
    lock = threading.Lock()

    def train(indices, seed):
        with lock:
            return logistic(indices, seed)

    with pytest.raises(TypeError, match=r"can't be sent to other processes \(TypeError: .*lock.*jobs=1"):
        call(train, jobs=2)
    assert call(train).outputs.shape == (5, 2, TARGETS)


def test_progress_counts_the_models_that_are_there(call, capsys):
    call(subsets=2)
    capsys.readouterr()
    call(progress=True)
    printed = capsys.readouterr().err
    assert "4/10" in printed
    assert "10/10" in printed
    assert "model/s" in printed


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


@pytest.mark.parametrize(
    "run, error, message",
    [
        (([], 0), ValueError, r"run 1: expected the indices of one training example or more, got shape \(0,\)"),
        (([[1]], 0), ValueError, r"got shape \(1, 1\)"),
        (([0, N], 0), ValueError, "run 1: index 24 is out of range, expected 0 to 23"),
        (([-1, 2], 0), ValueError, "index -1 is out of range"),
        (([3, 1, 3], 0), ValueError, "index 3 is there more than once"),
        ((np.ones(N, bool), 0), TypeError, r"indices must be integers, got bool; pass np.flatnonzero\(mask\)"),
        (([1], -1), ValueError, "run 1: the training seed must be an integer of 0 or more, got -1"),
        (([1], 2**32), ValueError, r"less than 2\*\*32, got 4294967296"),
        (([1], 0.5), ValueError, "got 0.5"),
        ([1], TypeError, r"run 1 must be \(indices, seed\)"),
        (TrainingRun([99], 0, "mine"), ValueError, "mine: index 99 is out of range"),
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
