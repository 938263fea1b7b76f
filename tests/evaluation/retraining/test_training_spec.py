"""What a training function is given, and what becomes of what it returns."""

import numpy as np
import pytest
import torch
import zarr
from retraining_case import BATCHES, CONFIG, Counting, N, X, Y, logistic, outputs_of
from torch import nn

import trak
from trak.evaluation import GroundTruth, RetrainingError, retrain, retrain_on
from trak.evaluation.retraining import training_seed


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
