"""Regression."""

import numpy as np
import pytest
import torch
from task_contract import ClassificationContract, images
from torch import nn

from trak.tasks import (
    Regression,
    make_task,
)


class TestRegression(ClassificationContract):
    def task(self):
        return make_task("regression")

    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(32, 1)).double()

    def batch(self, count):
        return images(count), torch.linspace(-1, 2, count, dtype=torch.float64)

    def expected_output(self, model, batch):
        return model(batch[0]).detach().numpy()[:, 0] - batch[1].numpy()

    def expected_loss(self, f):
        return f**2 / 2

    def expected_weights(self, f):
        return -f, np.ones_like(f)

    def test_q_is_y_minus_prediction(self):
        model, batch, task = self.model(), self.batch(4), self.task()
        q, _ = task.weights(model, batch, task.output(model, batch))
        torch.testing.assert_close(q, batch[1] - model(batch[0])[:, 0].detach())

    def test_predictions_and_y_may_each_be_a_column(self):
        model, (x, y), task = self.model(), self.batch(4), self.task()
        for batch in ((x, y[:, None]), {"inputs": x, "target": y}):
            torch.testing.assert_close(task.output(model, batch), task.output(model, (x, y)))
        flat = nn.Sequential(model, nn.Flatten(0))
        torch.testing.assert_close(task.output(flat, (x, y[:, None])), task.output(model, (x, y)))

    @pytest.mark.parametrize(
        "prediction, y, message",
        [
            (torch.zeros(4, 2), torch.zeros(4), r"prediction of shape \(4, 2\)"),
            (torch.zeros(4), torch.zeros(4, 3), r"y of shape \(4, 3\)"),
            (torch.zeros(()), torch.zeros(4), r"prediction of shape \(\)"),
            (torch.zeros(4), torch.zeros(1), "4 predictions for 1 values of y"),
        ],
    )
    def test_other_than_one_number_per_example_is_refused_with_its_shape(self, prediction, y, message):
        with pytest.raises(ValueError, match=message):
            Regression().check(nn.Identity(), (prediction, y))

    @pytest.mark.parametrize(
        "batch, message",
        [
            ({"inputs": torch.zeros(2), "why": torch.zeros(2)}, "no labels.* got inputs, why"),
            ({"y": torch.zeros(2)}, "no inputs.* got y"),
            ((torch.zeros(2),), r"\(inputs, y\)"),
        ],
    )
    def test_missing_members_are_named(self, batch, message):
        with pytest.raises(ValueError, match=message):
            Regression().check(nn.Identity(), batch)
