"""Logits, labels and margins."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from task_contract import CLASSES, IdentityByKeyword, Returns, labels, log_odds
from torch import nn

from trak.tasks import (
    Classification,
    ImageClassification,
    Regression,
    TextClassification,
)


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 80.0, 1e4])
def test_margins_are_accurate_in_float32_however_large_the_logits(size):
    logits = size * torch.tensor([[1.0, -0.5, 0.25], [-1.0, 0.75, 1.0], [0.0, 1.0, 1.0]])
    output = ImageClassification().output(nn.Identity(), (logits, labels(3)))
    for row, label, f in zip(logits.tolist(), range(3), output.tolist(), strict=True):
        others = [value for j, value in enumerate(row) if j != label]
        largest = max(others)
        exact = row[label] - largest - math.log(math.fsum(math.exp(value - largest) for value in others))
        assert f == pytest.approx(exact, rel=1e-5, abs=1e-6)


def test_labels_that_are_no_class_give_nan_and_leave_the_other_rows_right():
    logits = torch.randn(5, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wrong = torch.tensor([0, 3, 2, -1, -100])
    f = ImageClassification().output(nn.Identity(), (logits, wrong))
    assert f.isnan().tolist() == [False, True, False, True, True]
    np.testing.assert_allclose(f[[0, 2]].numpy(), log_odds(logits[[0, 2]], wrong[[0, 2]]), rtol=1e-12)


@pytest.mark.parametrize(
    "task, model, key",
    [
        (ImageClassification(), nn.Identity(), "images"),
        (TextClassification(), IdentityByKeyword(), "input_ids"),
        (ImageClassification(2.0), nn.Identity(), "x"),
        (Classification(), IdentityByKeyword(), "input_ids"),
    ],
)
@pytest.mark.parametrize(
    "logits, wrong, message",
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"3 in row 1 .* 3 classes \(labels 0 to 2\)"),
        (torch.zeros(2, 3), torch.tensor([-100, 0]), "label out of range: -100 in row 0"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), r"torch.float32; use labels.long\(\)"),
        (torch.zeros(2, 3), torch.tensor([True, False]), r"torch.bool; use labels.long\(\)"),
        (torch.zeros(2, 1), torch.tensor([0, 0]), r"two classes or more, got \(2, 1\)"),
        (torch.zeros(2, 3, 4), torch.tensor([0, 0]), r"got \(2, 3, 4\)"),
        (torch.zeros(2), torch.tensor([0, 0]), r"got \(2,\)"),
        (torch.zeros(2, 3), torch.tensor([[0], [1]]), r"expected labels of shape \(2,\), got \(2, 1\)"),
        (torch.zeros(2, 3), torch.tensor([0]), r"expected labels of shape \(2,\), got \(1,\)"),
        (torch.zeros(2, 3), [0, 1], "labels as a tensor of class indices, got list"),
    ],
)
def test_check_names_what_is_wrong_with_logits_or_labels(task, model, key, logits, wrong, message):
    for batch in ((logits, wrong), {key: logits, "labels": wrong}):
        with pytest.raises(ValueError, match=message):
            task.check(model, batch)


@pytest.mark.parametrize("value", [None, {"scores": torch.zeros(2, 3)}, SimpleNamespace(scores=1), (), "logits"])
def test_model_output_without_logits_is_refused_with_its_type(value):
    for task in (ImageClassification(), TextClassification(), Regression()):
        with pytest.raises(TypeError, match=f"returned {type(value).__name__} without logits"):
            task.check(Returns(value), (torch.zeros(2, 3), labels(2)))


def test_logits_are_found_in_whatever_a_model_returns():
    logits = torch.randn(2, 3, dtype=torch.float64)
    for value in (logits, {"logits": logits}, SimpleNamespace(logits=logits), (logits, None), [logits]):
        f = ImageClassification().output(Returns(value), (torch.zeros(2), labels(2)))
        np.testing.assert_allclose(f.numpy(), log_odds(logits, labels(2)), rtol=1e-10)
