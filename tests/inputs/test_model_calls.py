"""Batches reach models by keyword or by position."""

import pytest
import torch
from task_contract import OfSeries, labels, series
from torch import nn

from trak.tasks import (
    Classification,
    ImageClassification,
    MultiLabel,
    Regression,
)


@pytest.mark.parametrize("task", [ImageClassification(), Regression(), MultiLabel(), Classification()])
def test_inputs_that_a_model_misses_are_named_with_the_ways_to_give_them(task):
    (x, lengths), y = series(4), labels(4)
    batch = (x, y) if isinstance(task, Classification) else (x, lengths, y)
    with pytest.raises(TypeError, match=r"OfSeries.forward \(x, lengths\) was given 1 .*'lengths'") as error:
        task.check(OfSeries().double(), batch)
    for way in ('task="classification"', "dicts with its names", "write a Task"):
        assert way in str(error.value)


def test_inputs_that_a_dict_lacks_are_named_and_an_error_within_the_model_is_passed_on():
    with pytest.raises(TypeError, match=r"was given x: missing a required argument: 'lengths'"):
        Classification().check(OfSeries().double(), {"x": series(4)[0], "y": labels(4)})
    with pytest.raises(TypeError, match="shape is text"):
        Classification().check(Fails(), (torch.zeros(4, 2), labels(4)))


class Fails(nn.Module):
    def forward(self, x):
        raise TypeError("shape is text")


class SumOfBoth(nn.Module):
    def forward(self, first, second):
        return first + second


def test_a_dict_reaches_a_model_with_several_inputs_by_their_names_whatever_is_predicted():
    first, second = torch.randn(4, 1), torch.randn(4, 1)
    for task, y in ((Regression(), torch.randn(4)), (MultiLabel(), labels(4) % 2)):
        expected = task.output(nn.Identity(), (first + second, y))
        found = task.output(SumOfBoth(), {"second": second, "y": y, "first": first})
        assert torch.equal(found, expected)


def test_a_scripted_model_which_does_not_tell_its_arguments_is_called_all_the_same():
    model, x, y = torch.jit.trace(nn.Linear(2, 1), torch.zeros(1, 2)), torch.randn(4, 2), torch.randn(4)
    expected = Regression().output(model, (x, y))
    assert torch.equal(Regression().output(model, {"x": x, "y": y}), expected)
