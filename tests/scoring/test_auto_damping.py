"""What damping="auto" chooses, on ridge regressions, whose leave-one-out residuals have a closed form."""

import logging

import numpy as np
import pytest

from trak.attribution.results import StoredAttribution
from trak.scoring import DEFAULT_DAMPING, Damping, Scorer, ScoringConfig, gram
from trak.scoring.auto_damping import SUBSET_FRACTION, choose
from trak.store import FeatureStore, RowValues, StoreConfig


def regression(damping, rows=400, targets=600, k=60, seed=0):
    """Features and residuals of a ridge regression with relative damping, of training examples and held-out ones."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(k) * 0.5
    phi, phi_t = (rng.standard_normal((n, k)) * np.linspace(0.3, 2, k) for n in (rows, targets))
    y, y_t = (x @ weights + rng.standard_normal(len(x)) * 3 for x in (phi, phi_t))
    matrix = phi.T @ phi
    solution = np.linalg.solve(matrix + damping * np.trace(matrix) / k * np.eye(k), phi.T @ y)
    return (phi, phi @ solution - y), (phi_t, phi_t @ solution - y_t)


def experiment(where, train, targets, weighting="ggn", dtype="float32", curvature=1.0):
    """Stored as a task with f = residual and ℓ = f²/2 stores them."""
    (phi, f), (phi_t, f_t) = train, targets
    config = StoreConfig(
        len(phi), phi.shape[1], {"kind": "identity"}, dtype, {"w": [phi.shape[1]]}, {"name": "regression"}
    )
    store = FeatureStore.create(where, config)
    table = store.add_checkpoint(0, "weights")
    found = store.add_experiment("t", len(phi_t))

    def write(into, features, output):
        hashes = np.arange(len(output)).astype(np.uint64)
        columns = (features, output, -output, np.full(len(output), curvature))
        into.write(np.arange(len(output)), RowValues(*(c.astype(np.float32) for c in columns), hashes))

    write(table, phi, f)
    write(found.add_targets(0), phi_t, f_t)
    store.finalize(0, weighting, gram(table, weighting))
    return found


def refitted(damping, rows=120, k=40):
    """A ridge regression's features and residuals, and the residual of each example by a fit without it."""
    rng = np.random.default_rng(0)
    phi, weights = rng.standard_normal((rows, k)) * np.linspace(0.3, 2, k), rng.standard_normal(k) * 0.5
    matrix = phi.T @ phi
    lam = damping * np.trace(matrix) / k
    y = phi @ weights + rng.standard_normal(rows) * 3
    fit = np.linalg.solve(matrix + lam * np.eye(k), phi.T @ y)
    left_out = np.empty(rows)
    for i in range(rows):
        others = np.delete(phi, i, axis=0)
        without = np.linalg.solve(others.T @ others + lam * np.eye(k), others.T @ np.delete(y, i))
        left_out[i] = phi[i] @ without - y[i]
    return (phi, phi @ fit - y), (phi, left_out)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("weighting", ["ggn", "identity"])
@pytest.mark.parametrize("own", [0.3, 1.0, 3.0])
def test_the_damping_by_which_refits_leave_examples_out_is_found_again(tmp_path, own, weighting, dtype):
    stored = experiment(tmp_path, *refitted(own), weighting=weighting, dtype=dtype)
    value, why = choose(stored, [0], weighting)
    assert value == pytest.approx(own / SUBSET_FRACTION, rel=0.05)
    assert why == "chosen by 120 targets and 1 of 1 checkpoints"


def test_curvature_weights_and_none_choose_alike_where_the_curvature_is_constant(tmp_path):
    found = []
    for weighting in ("ggn", "identity"):
        stored = experiment(
            tmp_path / weighting, *regression(1.0, rows=100, targets=4000), weighting=weighting, curvature=0.2
        )
        found.append(choose(stored, [0], weighting)[0])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_more_dimensions_than_are_decomposed_choose_nearly_alike(tmp_path):
    (phi, f), (phi_t, f_t) = regression(1.0, rows=100, targets=4000)
    # An isometry: the same regression in 1,500 coordinates.
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((1500, phi.shape[1])))[0].T
    small = experiment(tmp_path / "small", (phi, f), (phi_t, f_t))
    large = experiment(tmp_path / "large", (phi @ basis, f), (phi_t @ basis, f_t))
    value, _ = choose(small, [0], "ggn")
    # Relative to trace(K)/k, which is smaller by the ratio of the dimensions: kept within its bounds.
    assert choose(large, [0], "ggn")[0] == pytest.approx(min(10.0, value * 1500 / phi.shape[1]), rel=0.1)


class TestTheDefaultIsTaken:
    def check(self, stored, caplog, why):
        value, found = choose(stored, [0], "ggn")
        assert value is None
        assert why in found
        with caplog.at_level(logging.INFO, "trak"):
            assert Scorer(stored, [0], ScoringConfig(Damping(auto=True), "ggn")).damping == Damping(DEFAULT_DAMPING)
        assert why in caplog.text

    def test_for_few_targets(self, tmp_path, caplog):
        self.check(experiment(tmp_path, *regression(1.0, targets=99)), caplog, "99 targets are too few")

    def test_for_targets_chosen_by_their_outputs(self, tmp_path, caplog):
        train, (phi_t, f_t) = regression(1.0, rows=100)
        worst = f_t > np.quantile(f_t, 0.7)
        self.check(experiment(tmp_path, train, (phi_t[worst], f_t[worst])), caplog, "unlike those of left-out")

    def test_for_training_examples_as_targets(self, tmp_path, caplog):
        train, _ = regression(1.0)
        self.check(experiment(tmp_path, train, (train[0], train[1] * 0.9)), caplog, "no larger than training")

    def test_for_a_loss_without_curvature(self, tmp_path, caplog):
        stored = experiment(tmp_path, *regression(1.0), weighting="identity", curvature=0.0)
        value, why = choose(stored, [0], "identity")
        assert value is None
        assert "no curvature" in why


@pytest.mark.parametrize("targets, why", [(600, "chosen by 600 targets"), (99, "the default: 99 targets are too few")])
def test_a_description_says_how_the_damping_was_chosen(tmp_path, targets, why):
    found = StoredAttribution(experiment(tmp_path, *regression(0.8, targets=targets)))
    assert "damping from" not in found.describe()  # nothing is computed for it
    found.top(1)
    assert found.describe()["damping from"].startswith(why)
    given = found.experiment, None, ScoringConfig(Damping(2.0))
    assert StoredAttribution(*given).describe().keys() == found.describe().keys() - {"damping from"}


def test_scores_are_those_of_the_damping_chosen(tmp_path):
    train, targets = regression(1.0, rows=100, targets=300)
    stored = experiment(tmp_path, train, targets)
    scorer = Scorer(stored, [0], ScoringConfig(Damping.make("auto", None), "ggn"))
    (phi, f), (phi_t, _) = train, targets
    matrix = phi.T @ phi
    inverse = np.linalg.inv(matrix + scorer.damping.value * np.trace(matrix) / len(matrix) * np.eye(len(matrix)))
    found = np.empty((100, 300), np.float32)
    scorer.fill(found)
    truth = phi @ inverse @ phi_t.T * -f[:, None]
    np.testing.assert_allclose(found, truth, atol=2e-4 * np.abs(truth).max())


@pytest.mark.parametrize("damping", ["much", [1.0]])
def test_what_is_no_damping_is_refused_with_its_value(damping):
    with pytest.raises(ValueError, match="damping must be a number or 'auto', got"):
        Damping.make(damping, None)


def test_no_damping_means_that_it_is_chosen():
    assert Damping.make(None, None) == Damping.make("auto", None) == Damping(auto=True)
