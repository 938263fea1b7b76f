"""Classification with inputs of any kind, and what all tasks of classification share."""

import math

import numpy as np
import pytest
import torch
from task_contract import (
    CLASSES,
    ClassificationContract,
    IdentityByKeyword,
    OfSeries,
    labels,
    log_odds,
    series,
    sigmoid,
)
from torch import nn

from trak.modelout_functions import (
    ImageClassificationModelOutput,
)
from trak.tasks import (
    Classification,
    ImageClassification,
    TextClassification,
    make_task,
)


class TestSeriesTuple(ClassificationContract):
    def task(self):
        return make_task("classification")

    def model(self):
        return OfSeries().double()

    def batch(self, count):
        return (*series(count), labels(count))

    def expected_output(self, model, batch):
        return log_odds(model(batch[0], batch[1]), batch[2])


class TestSeriesDict(TestSeriesTuple):
    def task(self):
        return Classification(temperature=2)

    def batch(self, count):
        x, lengths = series(count)
        return {"index": torch.arange(count), "y": labels(count), "lengths": lengths, "x": x}

    def expected_output(self, model, batch):
        return log_odds(model(batch["x"], batch["lengths"]) / 2, batch["y"])


class TestTable(ClassificationContract):
    def task(self):
        return Classification()


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("make", [ImageClassification, lambda t: make_task(ImageClassificationModelOutput(t))])
def test_temperature_enters_output_and_q_so_that_they_give_the_gradient_of_the_loss(make, temperature):
    logits = torch.randn(6, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = (logits.requires_grad_(), labels(6))
    loss = nn.functional.cross_entropy(logits / temperature, labels(6), reduction="sum")
    (expected,) = torch.autograd.grad(loss, logits)
    task = make(temperature)
    output = task.output(nn.Identity(), batch)
    q, _ = task.weights(nn.Identity(), batch, output)
    (slope,) = torch.autograd.grad(output.sum(), logits)
    torch.testing.assert_close(-q.unsqueeze(1) * slope, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
@pytest.mark.parametrize("task", [Classification, ImageClassification, TextClassification])
def test_temperature_that_is_not_positive_is_refused_with_its_value(task, temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        task(temperature)


@pytest.mark.parametrize(
    "task, batch, message",
    [
        (ImageClassification(), {"pictures": torch.zeros(2), "labels": labels(2)}, "no images.* got pictures, labels"),
        (ImageClassification(), {"images": torch.zeros(2), "labels": None}, "no labels.* got images, labels"),
        (ImageClassification(), {}, "got nothing"),
        (ImageClassification(), torch.zeros(2), r"is \(images, labels\)"),
        (ImageClassification(), (torch.zeros(2),), r"is \(images, labels\)"),
        (Classification(), torch.zeros(2), r"is \(inputs ..., labels\) or a dict of both, got Tensor"),
        (Classification(), (torch.zeros(2),), r"is \(inputs ..., labels\) or a dict of both, got tuple of 1"),
        (Classification(), {"input_ids": torch.zeros(2), "kind": labels(2)}, "no labels.* got input_ids, kind"),
        (Classification(), {"ids": torch.zeros(2), "labels": labels(2)}, r"\(ids, labels\).*forward \(input_ids\)"),
        (TextClassification(), {"input_ids": torch.zeros(2), "kind": labels(2)}, "no labels.* got input_ids, kind"),
        (TextClassification(), {"ids": torch.zeros(2), "labels": labels(2)}, r"\(ids, labels\).*forward \(input_ids\)"),
        (TextClassification(), torch.zeros(2), r"a tuple \(input_ids, labels\)"),
        (TextClassification(), (torch.zeros(2),) * 5, r"a tuple \(input_ids, labels\)"),
    ],
)
def test_check_names_missing_members_of_a_batch(task, batch, message):
    with pytest.raises(ValueError, match=message):
        task.check(IdentityByKeyword(), batch)


@pytest.mark.parametrize("task", [ImageClassification, lambda t: make_task(ImageClassificationModelOutput(t))])
def test_two_tasks_of_one_kind_do_not_touch_each_other(task):
    logits = torch.randn(4, CLASSES, dtype=torch.float64)
    batch = (logits, labels(4))
    warm, cold = task(4.0), task(0.5)
    for _ in range(2):
        for one, temperature in ((warm, 4.0), (cold, 0.5)):
            f = one.output(nn.Identity(), batch)
            np.testing.assert_allclose(f.numpy(), log_odds(logits / temperature, labels(4)), rtol=1e-9)
            q, _ = one.weights(nn.Identity(), batch, f)
            np.testing.assert_allclose(q.numpy(), sigmoid(-f.numpy()), rtol=1e-9)
    assert warm.describe() != cold.describe()
