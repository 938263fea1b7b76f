"""Removal sets against enumeration, and their checks against a closed form."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from score_arrays import random_scores
from torch import nn

import trak
from trak.analysis import RemovalSet, find_removal_set

RIDGE = 5.0


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float32, (9, 2), elements=st.floats(-2, 2, width=32)),
    st.floats(-4, 4).filter(lambda x: abs(x) > 1e-6),
)
def test_the_set_is_the_smallest_that_is_predicted_to_change_the_sign(scores, output):
    column = scores[:, 1].astype(np.float64)
    sign = np.sign(output)
    pushes = sorted((sign * column).tolist(), reverse=True)
    if pushes[0] <= 0:
        verb = "increases" if output > 0 else "decreases"
        with pytest.raises(ValueError, match=f"no training example {verb} the output of target 1"):
            find_removal_set(scores, 1, output=output)
        return
    found = find_removal_set(scores, 1, output=output)
    enough = [k for k in range(1, 9) if sum(x for x in pushes[:k]) >= abs(output)]
    if enough and found.predicted_flip:
        assert len(found.indices) == enough[0]
        # No set of fewer examples, whichever, would do.
        for few in itertools.combinations(column, len(found.indices) - 1):
            assert sign * sum(few) < abs(output) + 1e-9
    else:
        assert sum(x for x in pushes[:8] if x > 0) < abs(output) + 1e-9
        assert (sign * column[found.indices] > 0).all()
    assert found.predicted == pytest.approx(-sum(column[found.indices]), abs=1e-9)


def test_k_examples_decrease_the_output_or_increase_it():
    scores = random_scores()
    column = scores[:, 2]
    np.testing.assert_array_equal(find_removal_set(scores, 2, 5).indices, np.argsort(-column)[:5])
    np.testing.assert_array_equal(find_removal_set(scores, 2, 5, decrease=False).indices, np.argsort(column)[:5])
    np.testing.assert_array_equal(find_removal_set(scores, 2, 5, output=-1.0).indices, np.argsort(column)[:5])
    np.testing.assert_array_equal(
        find_removal_set(scores, 2, 5, output=-1.0, decrease=True).indices, np.argsort(-column)[:5]
    )


class Fitted(nn.Module):
    """Ridge regression on labels ±1 in closed form; its output is label · wᵀx."""

    def __init__(self, x, y):
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]).double(), x.T @ y))

    def forward(self, x):
        return x @ self.weight


class Signed(trak.tasks.Task):
    """A margin: label times the model's output."""

    def output(self, model, batch):
        x, y = batch
        return y * model(x)

    def correct(self, model, batch, output):
        return output > 0


@cache
def two_clouds():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(40).remainder(2).double() * 2 - 1
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    x[:, 0] = x[:, 0] + 0.5 * y
    # One target is just right, the other just wrong.
    w, f = Fitted(x, y).weight.detach(), torch.tensor([0.05, -0.05]).double()
    at = torch.stack([(f - w[1]) / w[0], torch.ones(2).double(), torch.zeros(2).double()], dim=1)
    return x, y, (at, torch.ones(2).double())


def without(indices):
    """f of both targets, fitted in closed form on what is left."""
    x, y, (at, label) = two_clouds()
    kept = np.setdiff1d(np.arange(40), indices)
    return (label * (at @ Fitted(x[kept], y[kept]).weight)).detach().numpy()


def train_ridge(indices, seed):
    x, y, _ = two_clouds()
    return Fitted(x[indices], y[indices])


def influences():
    """Exact change of both outputs by each single example: with it, less without it."""
    return np.stack([without([]) - without([i]) for i in range(40)])


@pytest.mark.parametrize("target", [0, 1])
def test_removal_flips_a_ridge_regression_as_the_closed_form_says(target, tmp_path):
    *_, targets = two_clouds()
    before = float(without([])[target])
    plan = find_removal_set(influences(), target, output=before)
    assert plan.predicted_flip
    found = plan.check(
        train_ridge, Signed(), [targets], save_dir=tmp_path, seeds=2, random_sets=4, jobs=1, progress=False
    )
    after = float(without(plan.indices)[target])
    assert found.change == pytest.approx(after - before, abs=1e-9)
    assert found.predicted == plan.predicted
    assert found.flipped is ((after > 0) != (before > 0))
    assert found.flipped
    assert found.standard_error == pytest.approx(0, abs=1e-12)  # the fit knows no chance
    assert abs(found.change) > 2 * np.abs(found.random_changes).max()
    assert found.random_flips == 0
    assert "the prediction flips" in str(found)


def test_random_sets_are_of_the_same_size_and_their_models_serve_other_sets(tmp_path):
    *_, targets = two_clouds()
    sizes = []

    def counted(indices, seed):
        sizes.append(len(indices))
        return train_ridge(indices, seed)

    options = {"save_dir": tmp_path, "seeds": 2, "random_sets": 3, "jobs": 1, "progress": False}
    for decrease in (True, False):
        find_removal_set(influences(), 0, 4, decrease=decrease).check(counted, Signed(), [targets], **options)
    assert sorted(sizes) == sorted([40] * 2 + [36] * 6 + [36] * 4)
    with pytest.raises(ValueError, match="targets are 1, but 2 were attributed"):
        find_removal_set(influences(), 0, 4).check(
            counted, Signed(), [(targets[0][:1], targets[1][:1])], **{**options, "save_dir": tmp_path / "other"}
        )


def test_a_removal_knows_no_flip_without_the_output():
    found = find_removal_set(random_scores(), 0, 3)
    assert isinstance(found, RemovalSet)
    assert found.predicted_flip is None
    assert "sign" not in str(found)
