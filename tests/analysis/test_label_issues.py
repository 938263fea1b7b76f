"""Label issues against labels that were changed on purpose."""

import numpy as np
import pytest
import torch
from score_arrays import random_scores
from sklearn.datasets import load_digits
from torch import nn

import trak
from trak.analysis import find_label_issues
from trak.evaluation import harm_scores, self_influence

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
    assert (found.suggested_labels[hits] == truth[found.indices[hits]]).mean() > 0.8  # a ninth by chance
    np.testing.assert_array_equal(found.given_labels, labels[found.indices])
    np.testing.assert_array_equal(found.issue_scores, self_influence(trusted, progress=False))
    scores = harm_scores(trusted)
    np.testing.assert_array_equal(find_label_issues(scores, labels, 9).indices, np.argsort(-scores, kind="stable")[:9])


def test_the_suggestion_is_the_other_label_that_decreases_the_output_most(blocks):
    scores, labels = random_scores(20, 20), np.array(["cat", "dog", "owl", "cat"] * 5)
    found = find_label_issues(-np.arange(20.0), labels, 20, self_attribution=scores)
    assert found.indices.tolist() == list(range(20))
    for i, suggested in zip(found.indices, found.suggested_labels, strict=True):
        against = {
            name: sum(max(-float(scores[j, i]), 0) for j in range(20) if labels[j] == name)
            for name in ("cat", "dog", "owl")
            if name != labels[i]
        }
        assert suggested == max(against, key=against.get)


def test_the_given_label_is_suggested_where_nothing_decreases_its_output():
    scores = np.ones((6, 6))
    scores[4, 2] = -1.0
    found = find_label_issues(np.arange(6.0), [0, 0, 1, 1, 2, 2], self_attribution=scores)
    assert found.indices.tolist() == [5, 4, 3, 2, 1, 0]
    assert found.suggested_labels.tolist() == [2, 2, 1, 2, 0, 0]
    assert "#2 (labelled 1, perhaps 2)" in str(found)
    assert "#3 (labelled 1)" in str(found)
