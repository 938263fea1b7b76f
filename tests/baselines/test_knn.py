"""Shapley values of nearest neighbours against enumeration."""

import numpy as np
import pytest
import torch
from models import images, numbers, texts
from shapley import shapley_by_enumeration
from torch import nn

from trak.baselines import KNNShapley
from trak.baselines.knn import shapley_of_neighbours


def attributed(baseline, case, targets=2):
    model, task, data = case
    return baseline.attribute(model, task, model.state_dict(), data, data[:targets], progress=False).scores


class TestKNNShapley:
    """Against enumeration of all subsets of 8 points."""

    @pytest.fixture
    def points(self):
        torch.manual_seed(0)
        x, y = torch.randn(13, 3).double(), torch.randint(2, (13,))
        x[6] = x[2]  # equally near
        return nn.Linear(3, 2).double(), [(x[:5], y[:5]), (x[5:8], y[5:8])], [(x[8:11], y[8:11]), (x[11:], y[11:])]

    def truth(self, train, targets, k, features=lambda x: x):
        x, y = (torch.cat([b[j] for b in train]) for j in (0, 1))
        new, label = (torch.cat([b[j] for b in targets]) for j in (0, 1))
        x, new = features(x).detach().numpy(), features(new).detach().numpy()

        def value(subset):
            found = []
            for target, wanted in zip(new, label.tolist(), strict=True):
                near = sorted(subset, key=lambda i: (np.linalg.norm(x[i] - target), i))[:k]
                found.append(sum(int(y[i]) == wanted for i in near) / k)
            return found

        return shapley_by_enumeration(value, 8)

    @pytest.mark.parametrize("k", [1, 3, 8, 20])
    def test_values_on_raw_inputs_equal_enumeration(self, points, k):
        model, train, targets = points
        found = KNNShapley(k).attribute(
            model, "image_classification", model.state_dict(), train, targets, progress=False
        )
        np.testing.assert_allclose(found.scores, self.truth(train, targets, k), rtol=1e-5, atol=1e-7)

    def test_values_on_a_layer_equal_enumeration_and_their_mean_over_checkpoints(self, points):
        model, train, targets = points
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        states, expected = [], []
        for _ in range(2):
            with torch.no_grad():
                model[0].weight.normal_()
            states.append({k: v.clone() for k, v in model.state_dict().items()})
            expected.append(self.truth(train, targets, 2, model[:2]))
        baseline = KNNShapley(2, layer="1")
        found = baseline.attribute(model, "image_classification", states, train, targets, progress=False)
        np.testing.assert_allclose(found.scores, np.mean(expected, axis=0), rtol=1e-5, atol=1e-7)

    def test_values_of_a_target_add_up_to_the_probability_of_its_label(self):
        found = attributed(KNNShapley(5), images())
        data = images().batches
        x, y = torch.cat([b[0] for b in data]).flatten(1), torch.cat([b[1] for b in data])
        near = torch.cdist(x[:16], x).argsort(dim=1)[:, :5]
        expected = (y[near] == y[:16, None]).double().mean(1)
        np.testing.assert_allclose(found.sum(0), expected.numpy(), rtol=1e-4, atol=1e-6)

    def test_some_targets_at_a_time_give_the_same(self, monkeypatch):
        whole = attributed(KNNShapley(3), images())
        monkeypatch.setattr("trak.baselines.knn._SORTED_AT_ONCE", 50)
        np.testing.assert_array_equal(attributed(KNNShapley(3), images()), whole)

    def test_labels_of_ones_own_make_any_task_do(self):
        baseline = KNNShapley(2, labels=lambda batch: (batch[1] > 0).long())
        found = attributed(baseline, numbers())
        model, _, data = numbers()
        classes = [(x, (y > 0).long()) for x, y in data]
        wide = nn.Sequential(model, nn.Linear(1, 2))
        np.testing.assert_array_equal(found, attributed(KNNShapley(2), (wide, "image_classification", classes)))

    def test_what_has_no_labels_or_no_numbers_is_refused_with_the_remedy(self):
        with pytest.raises(ValueError, match=r"Regression is not a classification task.*pass labels="):
            attributed(KNNShapley(), numbers())
        with pytest.raises(ValueError, match=r"torch.int64, such as token ids; name a layer behind the embedding"):
            attributed(KNNShapley(), texts())
        for k in (0, 2.5, True):
            with pytest.raises(ValueError, match=f"k must be an integer of 1 or more, got {k}"):
                KNNShapley(k)

    def test_formula_is_float64_whatever_the_features(self):
        found = shapley_of_neighbours(torch.tensor([[2.0, 1.0, 3.0]]), torch.tensor([[True, False, True]]), 1)
        # Nearest first: wrong, right, right. s3 = 1/3, s2 = s3, s1 = s2 - 1.
        torch.testing.assert_close(found, torch.tensor([[1 / 3, -2 / 3, 1 / 3]], dtype=torch.float64))
