"""Answers to people's questions are right: against loops in float64, and against what was planted."""

import itertools
import sys
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import nn

import trak
from trak.analysis import (
    RemovalCheck,
    RemovalSet,
    compare_attributions,
    data_values,
    find_label_issues,
    find_removal_set,
    group_attribution,
)
from trak.analysis import validation as inputs
from trak.attribution.results import ArrayAttribution
from trak.evaluation import agreement, harmfulness, self_influence

NORMAL = 1.959963984540054
"""97.5th percentile of the normal distribution."""


def random_scores(n=40, m=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n, m)).astype(np.float32)


@pytest.fixture(params=[1 << 22, 30], ids=["one block", "blocks of 4 rows"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(inputs, "_SCORES_AT_ONCE", request.param)


# ------------------------------------------------------------------------------------------------------------- value


def test_value_is_the_mean_over_targets_with_its_standard_error(blocks):
    scores = random_scores()
    found = data_values(scores)
    for i, row in enumerate(scores.astype(np.float64)):
        assert found.mean[i] == pytest.approx(sum(row) / 7, abs=1e-12)
        spread = sum((x - sum(row) / 7) ** 2 for x in row) / 6
        assert found.standard_error[i] == pytest.approx((spread / 7) ** 0.5, rel=1e-9)
    only = data_values(ArrayAttribution(scores), np.arange(7) % 2 == 0)
    np.testing.assert_allclose(only.mean, scores[:, ::2].astype(np.float64).mean(axis=1), atol=1e-12)
    assert only.targets == 4


def test_examples_to_keep_are_the_most_valuable_and_certainty_counts_both_ways():
    scores = random_scores(200, 9) + np.linspace(-1, 1, 200)[:, None]
    found = data_values(scores)
    kept = found.keep(0.9)
    assert len(kept) == 180
    assert (np.diff(kept) > 0).all()
    assert found.mean[kept].min() >= np.delete(found.mean, kept).max()
    z = found.mean / found.standard_error
    np.testing.assert_array_equal(found.helpful(), np.flatnonzero(z > NORMAL))
    np.testing.assert_array_equal(found.harmful(), np.flatnonzero(z < -NORMAL))
    assert len(found.harmful(0.99)) < len(found.harmful(0.5))
    assert "above 0 and" in str(found)


def test_one_target_has_a_value_but_no_certainty():
    found = data_values(random_scores(m=1))
    assert np.isnan(found.standard_error).all()
    assert "nan" not in str(found)
    with pytest.raises(ValueError, match="1 target tells nothing"):
        found.harmful()


# ---------------------------------------------------------------------------------------------------------- rests_on


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(np.float32, (12, 5), elements=st.floats(-4, 4, width=32)),
    arrays.arrays(bool, 5).filter(np.any),
    arrays.arrays(np.int64, 12, elements=st.integers(0, 3)),
)
def test_shares_of_groups_add_up_to_what_pushes_up_and_down(scores, mask, groups):
    found = group_attribution(scores, mask, groups=groups, k=3)
    mean = [float(np.mean([float(x) for x in row[mask]])) for row in scores]
    shares = found.shares()
    for sign, side in ((1, "up"), (-1, "down")):
        total = sum(max(sign * x, 0) for x in mean)
        for name, share in zip(shares["group"], shares[side], strict=True):
            part = sum(max(sign * x, 0) for x, group in zip(mean, groups, strict=True) if group == name)
            assert share == pytest.approx(part / total if total else 0, abs=1e-9)
    assert shares["net"].sum() == pytest.approx(sum(mean), abs=1e-6)
    assert shares["examples"].sum() == 12
    assert found.helpful.tolist() == sorted(range(12), key=lambda i: (-found.mean[i], i))[:3]
    assert found.harmful.tolist() == sorted(range(12), key=lambda i: (found.mean[i], i))[:3]


def test_a_mask_and_its_indices_are_one_slice(blocks):
    scores = random_scores()
    mask = np.array([False, True, True, False, False, False, True])
    for other in (np.flatnonzero(mask), [1, 2, 6], mask.tolist(), torch.from_numpy(mask)):
        np.testing.assert_array_equal(group_attribution(scores, other).mean, group_attribution(scores, mask).mean)
    np.testing.assert_allclose(
        group_attribution(scores, mask).mean, scores[:, mask].astype(float).mean(axis=1), atol=1e-12
    )
    np.testing.assert_array_equal(group_attribution(scores).targets, np.arange(7))


def test_without_groups_there_are_no_shares():
    with pytest.raises(ValueError, match="give rests_on groups"):
        group_attribution(random_scores()).shares()


# ----------------------------------------------------------------------------------------------------------- compare


def test_comparison_is_of_scores_with_root_mean_square_1(blocks):
    a, b = random_scores(), random_scores(seed=1)
    found = compare_attributions(a, b, k=4)
    change = np.empty((40, 7))
    for t in range(7):
        x, y = a[:, t].astype(np.float64), b[:, t].astype(np.float64)
        change[:, t] = y / np.sqrt(np.mean(y**2)) - x / np.sqrt(np.mean(x**2))
        assert found.agreement.correlations[t] == pytest.approx(spearmanr(x, y)[0])
    np.testing.assert_allclose(found.shift, change.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.difference, np.sqrt((change**2).mean(axis=1)), atol=1e-12)
    np.testing.assert_allclose(found.of_target(3) @ [-1, 1], change[:, 3], atol=1e-12)
    assert found.targets()[0] == found.agreement.correlations.argmin()
    assert found.examples()[0] == found.difference.argmax()
    assert str(found.agreement) == str(agreement(a, b, 4))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_of_a_models_scores_does_not_count(scale):
    a = random_scores()
    found = compare_attributions(a, (a.astype(np.float64) * scale * np.arange(1, 8)).astype(np.float32))
    np.testing.assert_allclose(found.difference, 0, atol=1e-5)


def test_an_example_that_only_one_model_rests_on_is_found():
    a = random_scores(100, 20)
    b = a * 5 + random_scores(100, 20, seed=1)
    b[17] += 40
    found = compare_attributions(a, b)
    assert found.examples()[0] == 17
    assert found.shift[17] > 0
    assert compare_attributions(b, a).shift[17] < 0


def test_a_target_without_scores_differs_from_none():
    a = random_scores()
    a[:, 2] = 0
    assert np.isfinite(compare_attributions(a, a).difference).all()
    np.testing.assert_array_equal(compare_attributions(a, a).shift, 0)


# ------------------------------------------------------------------------------------------------------- mislabelled

FLIPPED = 30


def trained(data, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Digits of which 30 of 400 are labelled wrong: the true labels, those given, and who is wrong; attributions of 50
    trusted ones and of the training set to itself."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))[:450]
    x, truth = torch.tensor(images[order] / 8 - 1, dtype=torch.float32), labels[order]
    wrong = np.sort(rng.permutation(400)[:FLIPPED])
    given_labels = truth.copy()
    given_labels[wrong] = (truth[wrong] + rng.integers(1, 10, FLIPPED)) % 10
    y = torch.tensor(given_labels)
    model, data = trained((x[:400], y[:400]), 0), [(x[:400], y[:400])]
    folder, found = tmp_path_factory.mktemp("digits"), []
    for name, targets in (("trusted", [(x[400:], y[400:])]), ("itself", data)):
        found.append(
            trak.attribute(
                model, "image_classification", [trained((x[:400], y[:400]), s).state_dict() for s in range(2)], data,
                targets, folder, exp_name=name, proj_dim=512, progress=False,
            )
        )  # fmt: skip
    return truth[:400], given_labels[:400], wrong, *found


def test_flipped_labels_of_digits_are_found_and_their_true_labels_suggested(digits):
    truth, labels, wrong, trusted, itself = digits
    found = find_label_issues(trusted, labels, FLIPPED, self_attribution=itself, progress=False)
    hits = np.isin(found.indices, wrong)
    assert hits.mean() > 0.6  # 0.075 by chance
    assert (found.suggested[hits] == truth[found.indices[hits]]).mean() > 0.8  # a ninth by chance
    np.testing.assert_array_equal(found.labels, labels[found.indices])
    np.testing.assert_array_equal(found.suspicion, self_influence(trusted, progress=False))
    suspicion = harmfulness(trusted)
    np.testing.assert_array_equal(
        find_label_issues(suspicion, labels, 9).indices, np.argsort(-suspicion, kind="stable")[:9]
    )


def test_the_suggestion_is_the_other_label_that_pushes_against_most(blocks):
    scores, labels = random_scores(20, 20), np.array(["cat", "dog", "owl", "cat"] * 5)
    found = find_label_issues(-np.arange(20.0), labels, 20, self_attribution=scores)
    assert found.indices.tolist() == list(range(20))
    for i, suggested in zip(found.indices, found.suggested, strict=True):
        against = {
            name: sum(max(-float(scores[j, i]), 0) for j in range(20) if labels[j] == name)
            for name in ("cat", "dog", "owl")
            if name != labels[i]
        }
        assert suggested == max(against, key=against.get)


# ----------------------------------------------------------------------------------------------------------- removal


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
        with pytest.raises(ValueError, match="no training example pushes the output of target 1"):
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


def test_k_examples_lower_the_output_or_raise_it():
    scores = random_scores()
    column = scores[:, 2]
    np.testing.assert_array_equal(find_removal_set(scores, 2, 5).indices, np.argsort(-column)[:5])
    np.testing.assert_array_equal(find_removal_set(scores, 2, 5, lower=False).indices, np.argsort(column)[:5])
    np.testing.assert_array_equal(find_removal_set(scores, 2, 5, output=-1.0).indices, np.argsort(column)[:5])
    np.testing.assert_array_equal(
        find_removal_set(scores, 2, 5, output=-1.0, lower=True).indices, np.argsort(-column)[:5]
    )


RIDGE = 5.0


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


def test_the_given_label_is_suggested_where_nothing_pushes_against_it():
    scores = np.ones((6, 6))
    scores[4, 2] = -1.0
    found = find_label_issues(np.arange(6.0), [0, 0, 1, 1, 2, 2], self_attribution=scores)
    assert found.indices.tolist() == [5, 4, 3, 2, 1, 0]
    assert found.suggested.tolist() == [2, 2, 1, 2, 0, 0]
    assert "#2 (labelled 1, perhaps 2)" in str(found)
    assert "#3 (labelled 1)" in str(found)


def test_scores_in_bfloat16_are_those_numbers():
    scores = torch.tensor(random_scores()).bfloat16()
    np.testing.assert_array_equal(data_values(scores).mean, data_values(scores.float().numpy()).mean)


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
    for lower in (True, False):
        find_removal_set(influences(), 0, 4, lower=lower).check(counted, Signed(), [targets], **options)
    assert sorted(sizes) == sorted([40] * 2 + [36] * 6 + [36] * 4)
    with pytest.raises(ValueError, match="targets are 1, but 2 were attributed"):
        find_removal_set(influences(), 0, 4).check(
            counted, Signed(), [(targets[0][:1], targets[1][:1])], **{**options, "save_dir": tmp_path / "other"}
        )


def test_changes_are_against_the_model_of_the_same_seed():
    outputs = np.array([[1.0, 3.0], [-1.0, 0.0], [1.5, 3.5], [0.0, 3.0]])
    found = RemovalCheck(0, 5, -2.0, outputs, outputs > 0)
    assert found.change == -2.5
    assert found.standard_error == pytest.approx(0.5)
    np.testing.assert_allclose(found.random_changes, [0.5, -0.5])
    assert found.flipped
    assert found.random_flips == 0.5
    unknown = RemovalCheck(0, 5, -2.0, outputs, None)
    assert unknown.flipped is unknown.random_flips is None
    assert "flip" not in str(unknown)


def test_a_prediction_that_was_wrong_before_is_not_said_to_stand():
    outputs = np.array([[-1.0, -3.0], [-2.0, -4.0], [-1.0, -3.0]])
    assert "the prediction was wrong already, and stays so (right in 0%" in str(
        RemovalCheck(0, 5, -2.0, outputs, outputs > 0)
    )
    assert "the prediction does not flip" in str(RemovalCheck(0, 5, -2.0, -outputs, -outputs > 0))


def test_one_seed_and_one_random_set_are_said_to_have_no_spread():
    outputs = np.array([[1.0, 3.0], [-1.0, 0.0], [1.5, 3.5], [0.0, 3.0]])
    found = str(RemovalCheck(0, 5, -2.0, outputs[:3, :1], None))
    assert "without random ones +0.500, one set)" in found
    assert found.endswith("one seed: how much of this is its noise is not known, take seeds=5")
    assert "one s" not in str(RemovalCheck(0, 5, -2.0, outputs, None))


def test_what_the_output_was_before_is_said_of_the_retrained_models_and_of_those_attributed():
    outputs = np.array([[1.0, 3.0], [-1.0, 0.0], [1.5, 3.5]])
    assert "changes by -2.500 ± 0.500 from +2.000 (predicted -2.000; " in str(RemovalCheck(0, 5, -2.0, outputs, None))
    assert "± 0.500 from +2.000, with the attributed models +0.500 (predicted -2.000; " in str(
        RemovalCheck(0, 5, -2.0, outputs, None, 0.5)
    )


# ------------------------------------------------------------------------------------------------------- bad inputs


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: data_values(s, np.ones(6, bool)), ValueError, r"mask of shape \(6,\), expected \(7,\)"),
        (lambda s: data_values(s, np.zeros(7, bool)), ValueError, "True nowhere"),
        (lambda s: group_attribution(s, []), ValueError, "targets is empty"),
        (lambda s: group_attribution(s, [7]), ValueError, "targets has 7, expected 0 to 6"),
        (lambda s: group_attribution(s, [0.5]), TypeError, "targets must be integers"),
        (lambda s: group_attribution(s, groups=[1, 2]), ValueError, r"groups of shape \(40,\), one for each, got \(2,\)"),
        (lambda s: group_attribution(s, k=41), ValueError, "k must be between 1 and 40, got 41"),
        (lambda s: data_values(s).keep(1.5), ValueError, "share must be above 0 and at most 1, got 1.5"),
        (lambda s: data_values(s).helpful(95), ValueError, "confidence must be between 0 and 1, got 95"),
        (lambda s: data_values(s[0]), ValueError, r"expected scores of shape \(n_train, n_targets\)"),
        (lambda s: compare_attributions(s, s[1:]), ValueError, r"one shape.*\(40, 7\) and \(39, 7\)"),
        (lambda s: compare_attributions(s, s).of_target(7), ValueError, "targets has 7, expected 0 to 6"),
        (lambda s: find_removal_set(s, 7, 3), ValueError, "targets has 7, expected 0 to 6"),
        (lambda s: find_removal_set(s, 0, 40), ValueError, "k must be between 1 and 39, got 40"),
        (lambda s: find_removal_set(s, 0), ValueError, "give k, .* or output"),
        (lambda s: find_removal_set(s, 0, output=float("nan")), ValueError, "output must be finite, got nan"),
        (lambda s: find_removal_set(s, 0, output=-1.0, lower=True), ValueError, "changes no sign: give k"),
        (lambda s: find_label_issues(s, np.zeros(40)), ValueError, "make one by trak.evaluation.harmfulness"),
        (lambda s: find_label_issues(s[:, 0], np.zeros(39)), ValueError, r"labels of shape \(40,\)"),
        (lambda s: find_label_issues(ArrayAttribution(s), np.zeros(40)), TypeError, "self_influence needs stored features"),
        (lambda s: find_label_issues(s[:, 0], np.arange(40), self_attribution=s), ValueError, r"of shape \(40, 40\), got \(40, 7\)"),
        (lambda s: find_label_issues(s[:, 0], np.zeros(40), self_attribution=s @ s.T), ValueError, "no other to suggest"),
        (lambda s: find_label_issues(s[:, 0], ["a", None] * 20), TypeError, "labels are a mixture of NoneType and str"),
        (lambda s: group_attribution(s, groups=["a", None] * 20), TypeError, "groups are a mixture of NoneType and str"),
        (lambda s: find_removal_set(s[:1], 0, k=1), ValueError, "scores are of 1 training example, and one has to stay"),
        (lambda s: find_removal_set(s, 0, output="much"), TypeError, "output must be a number, got 'much'"),
        (lambda s: find_removal_set(s, [0, 1], k=1), TypeError, r"target must be one integer, got \[0, 1\]"),
        (lambda s: compare_attributions(s, s).of_target([0, 1]), TypeError, "target must be one integer"),
        (lambda s: compare_attributions(s, s, names="ab"), ValueError, "names must be two, got 'ab'"),
        (lambda s: compare_attributions(s, s, names=None), ValueError, "names must be two, got None"),
        (lambda s: compare_attributions(s, s).plot(k=[3, 5]), TypeError, r"k must be one integer, got \[3, 5\]"),
        (lambda s: group_attribution(s, k=[3, 5]), TypeError, r"k must be one integer, got \[3, 5\]"),
        (lambda s: find_removal_set(s, 0, k=(3, 5)), TypeError, r"k must be one integer, got \(3, 5\)"),
        (lambda s: find_label_issues(s[:, 0], np.zeros(40), k=[3, 5]), TypeError, r"k must be one integer, got \[3, 5\]"),
        (lambda s: find_label_issues([], []), ValueError, "suspicion is empty"),
        (lambda s: find_label_issues(["a", "b"], [0, 1]), TypeError, "suspicion must be real numbers, got an array of <U1"),
        (lambda s: data_values(s).keep("half"), ValueError, "share must be above 0 and at most 1, got 'half'"),
        (lambda s: data_values(s).helpful("0.9"), ValueError, "confidence must be between 0 and 1, got '0.9'"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_an_error_that_says_why(call, error, message):
    with pytest.raises(error, match=message):
        call(random_scores())


def test_a_score_that_is_not_finite_is_named(blocks):
    scores = random_scores()
    scores[33, 5] = np.nan
    for ask in (lambda: data_values(scores), lambda: group_attribution(scores, [1, 5])):
        with pytest.raises(ValueError, match="training example 33 for target 5 is nan"):
            ask()
    assert np.isfinite(data_values(scores, [0, 1]).mean).all()


# ------------------------------------------------------------------------------------------------- tables, pictures


def answers():
    """Each kind of answer with the columns of its table, its rows, and what its axes are called."""
    scores, groups = random_scores(), np.arange(40) % 3
    outputs = np.random.default_rng(0).normal(size=(5, 3))
    removed_axes = ("removed from the training set", "output f (units of f)")
    yield (
        data_values(scores), ("train_index", "value", "standard_error"), 40,
        ("training examples, most valuable first (%)", "mean score over targets (units of f)"),
    )  # fmt: skip
    yield (
        group_attribution(scores, [1, 3], groups=groups, k=6), ("side", "rank", "train_index", "score", "group"), 12,
        ("group of training examples", "share (%)"),
    )  # fmt: skip
    yield (
        compare_attributions(scores, random_scores(seed=1), names=("one", "two")), ("train_index", "difference", "shift"), 40,
        ("score by one (root mean square 1)", "score by two (root mean square 1)"),
    )  # fmt: skip
    yield (
        find_label_issues(scores[:, 0], groups, 8, self_attribution=scores @ scores.T),
        ("train_index", "suspicion", "label", "suggested"), 8,
        ("training examples, most suspicious first", "suspicion"),
    )  # fmt: skip
    yield (
        find_removal_set(scores, 2, 4, output=3.0), ("train_index", "score", "predicted"), 4,
        ("training examples removed", "predicted output f (units of f)"),
    )  # fmt: skip
    yield (
        RemovalCheck(1, 3, -0.5, outputs, outputs > 0),
        ("removed", "set", "seed", "output", "right"),
        15,
        removed_axes,
    )


@pytest.mark.parametrize(("answer", "columns", "rows", "labels"), list(answers()), ids=lambda x: type(x).__name__)
class TestAnswers:
    def test_prints_as_one_line_and_becomes_a_table(self, answer, columns, rows, labels):
        assert "\n" not in str(answer)
        assert "nan" not in str(answer)
        frame = answer.to_frame()
        assert tuple(frame.columns) == columns
        assert len(frame) == rows

    def test_picture_is_labelled_and_told_apart_without_colour(self, answer, columns, rows, labels, monkeypatch):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, given_axes = plt.subplots()
        assert answer.plot(given_axes) is given_axes
        assert (given_axes.get_xlabel(), given_axes.get_ylabel()) == labels
        assert given_axes.get_title(loc="left")
        shown = [line for line in given_axes.lines if not line.get_label().startswith("_")]
        looks = [(line.get_linestyle(), line.get_marker()) for line in shown]
        assert len(set(looks)) == len(looks)
        hatches = [bars.patches[0].get_hatch() for bars in given_axes.containers]
        assert len(set(hatches)) == len(hatches)
        plt.close(figure)
        for module in ("pandas", "matplotlib", "matplotlib.pyplot"):
            monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match="to_frame needs pandas"):
            answer.to_frame()
        with pytest.raises(ImportError, match="plot needs matplotlib"):
            answer.plot()


@pytest.mark.parametrize("targets", [2, [0, 3, 6]])
def test_scores_are_drawn_as_counts_with_both_ends_marked(targets):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    attribution = ArrayAttribution(random_scores())
    ax = attribution.plot_scores(targets, k=3)
    highest, lowest = attribution.top(3), attribution.top(3, bottom=True)
    chosen = np.atleast_1d(targets)
    curves = ax.lines[: 2 * len(chosen)]
    for target, (down, up) in zip(chosen, zip(curves[::2], curves[1::2], strict=True), strict=True):
        column = attribution.scores[:, target]
        for curve, sign, found in ((down, -1, lowest), (up, 1, highest)):
            x, y = curve.get_data()
            assert [sum(sign * column >= sign * np.float32(at)) for at in x] == list(y)
            np.testing.assert_array_equal(x[curve.get_markevery()], found.scores[target])
    looks = {(line.get_linestyle(), line.get_marker()) for line in curves}
    assert len(looks) == len(chosen)
    assert "units of f" in ax.get_xlabel()
    assert ax.get_yscale() == "log"
    names = {text.get_text() for text in ax.texts}
    assert names == ({f"#{i}" for i in (*highest.indices[2], *lowest.indices[2])} if len(chosen) == 1 else set())
    plt.close(ax.figure)


def test_scores_of_no_target_cannot_be_drawn():
    with pytest.raises(ValueError, match="targets has 7, expected 0 to 6"):
        ArrayAttribution(random_scores()).plot_scores(7)
    with pytest.raises(ValueError, match="k must be 0 or more"):
        ArrayAttribution(random_scores()).plot_scores(0, k=-1)


def test_a_removal_knows_no_flip_without_the_output():
    found = find_removal_set(random_scores(), 0, 3)
    assert isinstance(found, RemovalSet)
    assert found.predicted_flip is None
    assert "sign" not in str(found)
