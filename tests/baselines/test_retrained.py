"""Empirical influence and datamodels against closed forms."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trak.baselines import Datamodel, EmpiricalInfluence


def linear_truth(subsets=200, n=30, targets=4, seeds=2, noise=0.0, nonzero=5):
    """Outputs that are a sparse linear function of the masks, and its weights."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(n, targets)) * (rng.permuted(np.tile(np.arange(n) < nonzero, (targets, 1)), axis=1).T)
    masks = rng.random((subsets, n)) < 0.5
    outputs = (masks @ weights)[:, None] + noise * rng.normal(size=(subsets, seeds, targets)) + 3
    return SimpleNamespace(masks=masks, outputs=outputs), weights


def scores(baseline):
    return baseline.attribute(progress=False).scores


class TestEmpiricalInfluence:
    def test_it_is_the_mean_with_the_example_minus_the_mean_without(self):
        truth, _ = linear_truth(noise=1.0)
        found = scores(EmpiricalInfluence(truth))
        for i in range(30):
            for t in range(4):
                inside = [truth.outputs[j, s, t] for j in range(200) for s in range(2) if truth.masks[j, i]]
                outside = [truth.outputs[j, s, t] for j in range(200) for s in range(2) if not truth.masks[j, i]]
                assert found[i, t] == pytest.approx(np.mean(inside) - np.mean(outside), rel=1e-5, abs=1e-6)

    def test_an_example_in_every_subset_or_in_none_is_refused(self):
        truth, _ = linear_truth()
        for value, what in ((True, "every subset"), (False, "no subset")):
            masks = truth.masks.copy()
            masks[:, 7] = value
            with pytest.raises(ValueError, match=f"{what} holds training example 7"):
                EmpiricalInfluence(SimpleNamespace(masks=masks, outputs=truth.outputs))


class TestDatamodel:
    def test_ridge_with_a_given_penalty_is_the_closed_form(self):
        truth, _ = linear_truth(noise=1.0)
        x, y = truth.masks - truth.masks.mean(0), truth.outputs.mean(1) - truth.outputs.mean((0, 1))
        expected = np.linalg.solve(x.T @ x + 2.5 * np.eye(30), x.T @ y)
        np.testing.assert_allclose(scores(Datamodel(truth, "ridge", penalty=2.5)), expected, rtol=1e-4, atol=1e-6)

    def test_lasso_with_a_given_penalty_meets_its_optimality_conditions(self):
        truth, _ = linear_truth(noise=1.0)
        penalty, w = 0.05, scores(Datamodel(truth, penalty=0.05)).astype(float)
        x, y = truth.masks - truth.masks.mean(0), truth.outputs.mean(1) - truth.outputs.mean((0, 1))
        slope = x.T @ (y - x @ w) / 200
        active = w != 0
        assert 10 < active.sum() < 100
        np.testing.assert_allclose(slope[active], penalty * np.sign(w[active]), rtol=0.02)
        assert np.abs(slope[~active]).max() <= penalty * 1.01

    @pytest.mark.parametrize("regression", ["lasso", "ridge"])
    def test_an_exact_sparse_datamodel_is_found(self, regression):
        truth, weights = linear_truth()
        found = scores(Datamodel(truth, regression))
        np.testing.assert_allclose(found, weights, atol=0.02)

    def test_ridge_penalty_is_the_one_with_the_least_error_leaving_one_out(self):
        truth, _ = linear_truth(subsets=40, noise=1.0, targets=2)
        x, y = truth.masks - truth.masks.mean(0), truth.outputs.mean(1)
        grid = (x**2).sum() / 30 * np.logspace(-3, 3, 50)
        found = scores(Datamodel(truth, "ridge"))
        for t in range(2):
            errors = []
            for penalty in grid:
                loss = 0
                for left in range(40):
                    kept = np.arange(40) != left
                    a, b = x[kept] - x[kept].mean(0), y[kept, t] - y[kept, t].mean()
                    w = np.linalg.solve(a.T @ a + penalty * np.eye(30), a.T @ b)
                    loss += (y[left, t] - y[kept, t].mean() - (x[left] - x[kept].mean(0)) @ w) ** 2
                errors.append(loss)
            best = grid[int(np.argmin(errors))]
            assert grid[0] < best < grid[-1]
            expected = np.linalg.solve(x.T @ x + best * np.eye(30), x.T @ (y[:, t] - y[:, t].mean()))
            np.testing.assert_allclose(found[:, t], expected, rtol=1e-3, atol=1e-5)

    def test_lasso_penalty_is_the_one_with_the_least_error_over_the_folds(self):
        from sklearn.linear_model import Lasso
        from sklearn.model_selection import KFold

        truth, _ = linear_truth(subsets=80, noise=1.0, targets=1)
        x, y = truth.masks.astype(float), truth.outputs.mean(1)[:, 0]
        largest = np.abs((x - x.mean(0)).T @ (y - y.mean())).max() / 80
        errors = []
        for penalty in (grid := largest * np.logspace(0, -3, 50)):
            folds = KFold(4, shuffle=True, random_state=3).split(x)
            errors.append(
                np.mean([np.mean((Lasso(penalty).fit(x[a], y[a]).predict(x[b]) - y[b]) ** 2) for a, b in folds])
            )
        best = grid[int(np.argmin(errors))]
        found = scores(Datamodel(truth, folds=4, seed=3))
        np.testing.assert_allclose(found[:, 0], Lasso(best).fit(x, y).coef_, rtol=1e-2, atol=1e-3)

    def test_the_unit_of_the_outputs_does_not_matter(self):
        truth, _ = linear_truth(noise=1.0)
        small = SimpleNamespace(masks=truth.masks, outputs=truth.outputs * 1e-6)
        for regression in ("lasso", "ridge"):
            np.testing.assert_allclose(
                scores(Datamodel(small, regression)), scores(Datamodel(truth, regression)) * 1e-6, rtol=1e-4, atol=1e-12
            )

    def test_a_constant_output_gives_zeros(self):
        truth, _ = linear_truth()
        truth.outputs[:, :, 1] = 0.1
        for regression in ("lasso", "ridge"):
            found = scores(Datamodel(truth, regression))
            assert (found[:, 1] == 0).all()
            assert (found[:, 0] != 0).any()

    def test_settings_that_can_not_be_are_refused(self):
        truth, _ = linear_truth(subsets=4)
        for settings, message in (
            ({"regression": "laso"}, r"unknown regression 'laso': did you mean 'lasso'\?"),
            ({"penalty": 0}, "penalty must be positive and finite, or None to choose it, got 0"),
            ({"folds": 5}, "folds must be between 2 and the number of subsets, 4, got 5"),
        ):
            with pytest.raises(ValueError, match=message):
                Datamodel(truth, **settings)


@pytest.mark.parametrize("kind", [EmpiricalInfluence, Datamodel])
class TestGroundTruth:
    """What is refused of the retrained models."""

    def test_shapes_that_do_not_fit(self, kind):
        truth, _ = linear_truth()
        for masks, outputs in (
            (truth.masks[:-1], truth.outputs),
            (truth.masks, truth.outputs[:, 0]),
            (truth.masks[0], truth.outputs),
        ):
            with pytest.raises(ValueError, match=r"expected masks of shape \(subsets, n_train\) and outputs of shape"):
                kind(SimpleNamespace(masks=masks, outputs=outputs))

    def test_an_output_that_is_not_finite(self, kind):
        truth, _ = linear_truth()
        truth.outputs[3, 1, 2] = np.nan
        with pytest.raises(ValueError, match="output of subset 3, seed 1 for target 2 is nan, not finite"):
            kind(truth)

    def test_loaders_of_another_size(self, kind):
        truth, _ = linear_truth()
        baseline, loader = kind(truth), [(torch.zeros(31, 2),)]
        with pytest.raises(ValueError, match="train holds 31 examples, the masks of the retrained models 30"):
            baseline.attribute(train=loader)
        with pytest.raises(ValueError, match="targets holds 31 examples, the outputs of the retrained models 4"):
            baseline.attribute(targets=loader)
