"""What every function of the room promises: errors that say why, lines, tables and pictures."""

import sys

import numpy as np
import pytest
from score_arrays import random_scores

from trak.analysis import (
    RemovalCheck,
    compare_attributions,
    data_values,
    find_label_issues,
    find_removal_set,
    group_attribution,
)
from trak.attribution.results import ArrayAttribution


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: data_values(s, np.ones(6, bool)), ValueError, r"mask of shape \(6,\), expected \(7,\)"),
        (lambda s: data_values(s, np.zeros(7, bool)), ValueError, "True nowhere"),
        (lambda s: group_attribution(s, []), ValueError, "targets is empty"),
        (lambda s: group_attribution(s, [7]), ValueError, "targets must be between 0 and 6, got 7"),
        (lambda s: group_attribution(s, [0.5]), TypeError, "targets must be integers"),
        (lambda s: group_attribution(s, groups=[1]), ValueError, r"groups of shape \(40,\), one for each, got \(1,\)"),
        (lambda s: group_attribution(s, k=41), ValueError, "k must be between 1 and 40, got 41"),
        (lambda s: data_values(s).keep(1.5), ValueError, "share must be above 0 and at most 1, got 1.5"),
        (lambda s: data_values(s).helpful(95), ValueError, "confidence must be between 0 and 1, got 95"),
        (lambda s: data_values(s[0]), ValueError, r"expected scores of shape \(n_train, n_targets\)"),
        (lambda s: compare_attributions(s, s[1:]), ValueError, r"one shape.*\(40, 7\) and \(39, 7\)"),
        (lambda s: compare_attributions(s, s).normalized_scores(7),
         ValueError, "target must be between 0 and 6, got 7"),
        (lambda s: find_removal_set(s, 7, 3), ValueError, "target must be between 0 and 6, got 7"),
        (lambda s: find_removal_set(s, 0, 40), ValueError, "k must be between 1 and 39, got 40"),
        (lambda s: find_removal_set(s, 0), ValueError, "give k, .* or output"),
        (lambda s: find_removal_set(s, 0, output=float("nan")), ValueError, "output must be finite, got nan"),
        (lambda s: find_removal_set(s, 0, output=-1.0, decrease=True), ValueError, "changes no sign: give k"),
        (lambda s: find_label_issues(s, np.zeros(40)), ValueError, "call trak.evaluation.harm_scores first"),
        (lambda s: find_label_issues(s[:, 0], np.zeros(39)), ValueError, r"labels of shape \(40,\)"),
        (lambda s: find_label_issues(ArrayAttribution(s), np.zeros(40)),
         TypeError, "self_influence needs stored features"),
        (lambda s: find_label_issues(s[:, 0], np.arange(40), self_attribution=s),
         ValueError, r"of shape \(40, 40\), got \(40, 7\)"),
        (lambda s: find_label_issues(s[:, 0], np.zeros(40), self_attribution=s @ s.T),
         ValueError, "no other to suggest"),
        (lambda s: find_label_issues(s[:, 0], ["a", None] * 20), TypeError, "labels are a mixture of NoneType and str"),
        (lambda s: group_attribution(s, groups=["a", None] * 20),
         TypeError, "groups are a mixture of NoneType and str"),
        (lambda s: find_removal_set(s[:1], 0, k=1),
         ValueError, "scores are of 1 training example, and one has to stay"),
        (lambda s: find_removal_set(s, 0, output="much"), TypeError, "output must be a number, got 'much'"),
        (lambda s: find_removal_set(s, [0, 1], k=1), TypeError, r"target must be one integer, got \[0, 1\]"),
        (lambda s: compare_attributions(s, s).normalized_scores([0, 1]), TypeError, "target must be one integer"),
        (lambda s: compare_attributions(s, s, names="ab"), ValueError, "names must be two, got 'ab'"),
        (lambda s: compare_attributions(s, s, names=None), ValueError, "names must be two, got None"),
        (lambda s: compare_attributions(s, s).plot(k=[3, 5]), TypeError, r"k must be one integer, got \[3, 5\]"),
        (lambda s: group_attribution(s, k=[3, 5]), TypeError, r"k must be one integer, got \[3, 5\]"),
        (lambda s: find_removal_set(s, 0, k=(3, 5)), TypeError, r"k must be one integer, got \(3, 5\)"),
        (lambda s: find_label_issues(s[:, 0], np.zeros(40), k=[3, 5]),
         TypeError, r"k must be one integer, got \[3, 5\]"),
        (lambda s: find_label_issues([], []), ValueError, "issue_scores is empty"),
        (lambda s: find_label_issues(["a", "b"], [0, 1]),
         TypeError, "issue_scores must be real numbers, got an array of <U1"),
        (lambda s: data_values(s).keep("half"), ValueError, "share must be above 0 and at most 1, got 'half'"),
        (lambda s: data_values(s).helpful("0.9"), ValueError, "confidence must be between 0 and 1, got '0.9'"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_an_error_that_says_why(call, error, message):
    with pytest.raises(error, match=message):
        call(random_scores())


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
        compare_attributions(scores, random_scores(seed=1), names=("one", "two")),
        ("train_index", "difference", "shift"), 40,
        ("score by one (root mean square 1)", "score by two (root mean square 1)"),
    )  # fmt: skip
    yield (
        find_label_issues(scores[:, 0], groups, 8, self_attribution=scores @ scores.T),
        ("train_index", "issue_score", "given_label", "suggested_label"), 8,
        ("training examples, highest issue score first", "label issue score"),
    )  # fmt: skip
    yield (
        find_removal_set(scores, 2, 4, output=3.0), ("train_index", "score", "predicted"), 4,
        ("training examples removed", "predicted output f (units of f)"),
    )  # fmt: skip
    yield (
        RemovalCheck(1, 3, -0.5, outputs, outputs > 0),
        ("removed", "set", "seed", "output", "correct"),
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
