"""Shapley values by retraining against enumeration."""

import numpy as np
import pytest
import torch
from shapley import shapley_by_enumeration
from torch import nn

from trak.baselines import DataShapley
from trak.tasks import Task


class Prediction(Task):
    """The model's number itself."""

    def output(self, model, batch):
        return model(batch[0]).squeeze(-1)


class TestDataShapley:
    """Against enumeration of all subsets of 8 points, for ridge regressions in closed form."""

    @pytest.fixture
    def points(self):
        torch.manual_seed(0)
        return torch.randn(8, 3).double(), torch.randn(8).double(), torch.randn(5, 3).double()

    def weights(self, x, y, indices):
        return torch.linalg.solve(x[indices].T @ x[indices] + torch.eye(3).double(), x[indices].T @ y[indices])

    def make(self, points, counted=None, **settings):
        x, y, _ = points
        known = {}

        def train(indices, seed):
            assert indices.dtype == np.int64
            assert (np.diff(indices) > 0).all()
            assert seed == settings.get("seed", 0)
            if counted is not None:
                counted.append(len(indices))
            key = indices.tobytes()
            if key not in known:
                model = known[key] = nn.utils.skip_init(nn.Linear, 3, 1, bias=False).double()
                with torch.no_grad():
                    model.weight.copy_(self.weights(x, y, torch.from_numpy(indices))[None])
            return known[key]

        return DataShapley(train, **settings)

    def attributed(self, baseline, points):
        x, y, new = points
        return baseline.attribute(
            None, Prediction(), [], [(x[:5], y[:5]), (x[5:], y[5:])], [(new[:3],), (new[3:],)], progress=False
        ).scores

    def value(self, points):
        x, y, new = points
        return lambda subset: (new @ self.weights(x, y, torch.tensor(subset, dtype=torch.int64))).numpy()

    def test_it_is_within_the_monte_carlo_error_of_enumeration(self, points):
        exact, permutations = shapley_by_enumeration(self.value(points), 8), 400
        found = self.attributed(self.make(points, permutations=permutations, tolerance=0), points)
        rng, value, steps = np.random.default_rng(99), self.value(points), []
        for _ in range(200):  # the spread of what an example adds in a random order
            order = rng.permutation(8)
            values = [value(sorted(order[:i])) for i in range(9)]
            steps.append(np.diff(values, axis=0)[np.argsort(order)])
        error = np.std(steps, axis=0) / np.sqrt(permutations)
        z = (found - exact) / error
        assert np.abs(z).max() < 4.5
        assert 0.5 < np.sqrt((z**2).mean()) < 1.5

    def test_scores_add_up_to_what_the_whole_training_set_changes(self, points):
        found, value = self.attributed(self.make(points, permutations=3, tolerance=0), points), self.value(points)
        np.testing.assert_allclose(found.sum(0), value(range(8)) - value([]), rtol=1e-5, atol=1e-6)

    def test_the_mean_output_gives_one_column(self, points):
        each = self.attributed(self.make(points, permutations=4, tolerance=0), points)
        mean = self.attributed(self.make(points, permutations=4, tolerance=0, utility="mean"), points)
        assert mean.shape == (8, 1)
        np.testing.assert_allclose(mean[:, 0], each.mean(1), rtol=1e-4, atol=1e-6)

    def test_orders_depend_on_the_seed_alone(self, points):
        found = [self.attributed(self.make(points, permutations=3, seed=seed), points) for seed in (1, 1, 2)]
        np.testing.assert_array_equal(found[0], found[1])
        assert not np.array_equal(found[0], found[2])

    def test_once_the_utility_is_reached_the_rest_of_an_order_is_worth_nothing(self):
        def train(indices, seed):
            counted.append(len(indices))
            model = nn.utils.skip_init(nn.Linear, 1, 1, bias=False)
            with torch.no_grad():
                model.weight.fill_(min(3, len(indices)))  # the fourth example and any later one add nothing
            return model

        data = [(torch.ones(10, 1),)]
        for tolerance, trained in ((0, 2 + 5 * 9), (0.01, 2 + 5 * 3), (0.5, 2 + 5 * 2)):
            counted = []
            baseline = DataShapley(train, permutations=5, tolerance=tolerance)
            found = baseline.attribute(None, Prediction(), [], data, data, progress=False).scores
            assert len(counted) == trained
            assert found[:, 0].sum() == pytest.approx(2 if tolerance == 0.5 else 3)

    def test_what_train_may_not_return_is_refused(self, points):
        with pytest.raises(TypeError, match=r"train must return a torch.nn.Module, got int"):
            self.attributed(DataShapley(lambda indices, seed: 3), points)

        def broken(indices, seed):
            model = nn.Linear(3, 1).double()
            with torch.no_grad():
                model.weight.fill_(torch.nan if len(indices) > 2 else 0)
            return model

        with pytest.raises(
            ValueError, match=r"trained on 8 examples, the first of them \[0, 1, 2, 3, 4\], has output n"
        ):
            self.attributed(DataShapley(broken), points)

    def test_settings_that_can_not_be_are_refused(self):
        for settings, message in (
            ({"permutations": 0}, "permutations must be an integer of 1 or more, got 0"),
            ({"tolerance": 1}, "tolerance must be 0 or more and below 1, got 1"),
            ({"utility": "loss"}, "unknown utility 'loss': use one of mean, outputs"),
        ):
            with pytest.raises(ValueError, match=message):
                DataShapley(lambda indices, seed: None, **settings)
        with pytest.raises(TypeError, match="train must be a function"):
            DataShapley(3)
