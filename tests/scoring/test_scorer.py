"""Scores against the slow truth."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TASK_CASES, images
from torch import nn
from zarr.storage import MemoryStore

import trak
from trak.projectors import Identity, make_projector
from trak.scoring import Damping, Scorer, ScoringConfig, TopKQuery, gram, solve
from trak.scoring.top_k import _stable_top
from trak.store import FeatureStore, RowValues, StoreConfig, Table
from trak.tasks import make_task
from trak.testing.reference import scores as true_scores


def varied(model, count):
    """Checkpoints that differ, as independent training runs would."""
    torch.manual_seed(1)
    return [
        {k: v + 0.2 * torch.randn_like(v) if v.is_floating_point() and "running" not in k else v for k, v in s.items()}
        for s in [model.state_dict()] * count
    ]


def relative_error(found, truth):
    return np.abs(found - truth).max() / np.abs(truth).max()


@pytest.mark.parametrize("weighting", ["ggn", "identity"])
@pytest.mark.parametrize("subset", [False, True], ids=["all-parameters", "grad_wrt"])
@pytest.mark.parametrize("checkpoints", [1, 3])
@pytest.mark.parametrize("case", TASK_CASES)
def test_scores_equal_float64_reference_to_1e_4(tmp_path, case, checkpoints, subset, weighting):
    model, task, data = TASK_CASES[case]()
    names = [name for name, _ in model.named_parameters()]
    names = names[-2:] if subset else names
    states = varied(model, checkpoints)
    projector = make_projector("sketch", 16, 3)
    found = trak.attribute(
        model, task, states, data, data[:2], tmp_path, projector=projector, weighting=weighting,
        grad_wrt=names if subset else None, progress=False,
    )  # fmt: skip
    truth = true_scores(
        model, make_task(task), states, data, data[:2], projector, weighting=weighting, damping=3.0, names=names
    )
    assert found.scores.shape == truth.shape == (23, 16)
    assert relative_error(found.scores, truth) < 1e-4


@pytest.mark.parametrize("projector", ["rademacher", "gaussian", "identity"])
def test_scores_equal_float64_reference_with_every_projector(tmp_path, projector):
    model, task, data = images(n=9)
    states = varied(model, 2)
    made = make_projector(projector, 11, 0)
    found = trak.attribute(model, task, states, data, data, tmp_path, projector=made, progress=False).scores
    truth = true_scores(model, make_task(task), states, data, data, made, weighting="ggn", damping=3.0)
    assert relative_error(found, truth) < 1e-4


@pytest.mark.parametrize("normalize_checkpoints", [True, False])
def test_checkpoints_count_alike_or_by_the_size_of_the_targets_gradient(tmp_path, normalize_checkpoints):
    model, task, data = images()
    states = varied(model, 3)
    # Gradients of the last checkpoint are far larger than the others'.
    states[2] = {name: 5 * value for name, value in states[2].items()}
    projector = make_projector("sketch", 16)
    found = trak.attribute(
        model,
        task,
        states,
        data,
        data[:2],
        tmp_path,
        projector=projector,
        normalize_checkpoints=normalize_checkpoints,
        progress=False,
    ).scores
    options = {"weighting": "ggn", "damping": 3.0}
    truth = true_scores(
        model,
        make_task(task),
        states,
        data,
        data[:2],
        projector,
        normalize_checkpoints=normalize_checkpoints,
        **options,
    )
    other = true_scores(
        model,
        make_task(task),
        states,
        data,
        data[:2],
        projector,
        normalize_checkpoints=not normalize_checkpoints,
        **options,
    )
    assert relative_error(found, truth) < 1e-4
    assert relative_error(found, other) > 1e-2


def test_absolute_regularisation_equals_float64_reference(tmp_path):
    model, task, data = images()
    states = varied(model, 1)
    projector = make_projector("sketch", 8)
    found = trak.attribute(
        model, task, states, data, data, tmp_path, projector=projector, lambda_reg=0.05, progress=False
    )
    truth = true_scores(
        model, make_task(task), states, data, data, projector, weighting="ggn", damping=None, lambda_reg=0.05
    )
    assert relative_error(found.scores, truth) < 1e-4


def test_half_precision_storage_changes_scores_by_less_than_one_percent(tmp_path):
    model, task, data = images()
    states = varied(model, 2)
    options = {"proj_dim": 16, "progress": False}
    full = trak.attribute(model, task, states, data, data, tmp_path / "a", **options)
    half = trak.attribute(model, task, states, data, data, tmp_path / "b", dtype="float16", **options)
    assert relative_error(half.scores, full.scores) < 1e-2


def test_training_on_an_example_pushes_its_own_output_up(tmp_path):
    model, task, data = images()
    found = trak.attribute(model, task, [model.state_dict()], data, data, tmp_path, proj_dim=512, progress=False)
    assert (np.diag(found.scores) > 0).all()


def test_score_predicts_the_direction_of_a_gradient_step(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(6, 2).double()
    x, y = torch.randn(12, 6).double(), torch.randint(2, (12,))
    task = make_task("image_classification")
    found = trak.attribute(
        model, task, [model.state_dict()], [(x, y)], [(x, y)], tmp_path, projector=Identity(), damping=1e6,
        progress=False,
    )  # fmt: skip
    before = task.output(model, (x, y)).detach()
    for i in range(12):
        stepped = nn.Linear(6, 2).double()
        stepped.load_state_dict(model.state_dict())
        loss = task.loss(task.output(stepped, (x[i : i + 1], y[i : i + 1]))).sum()
        for p, g in zip(stepped.parameters(), torch.autograd.grad(loss, list(stepped.parameters())), strict=True):
            p.data -= 1e-6 * g
        change = (task.output(stepped, (x, y)).detach() - before).numpy()
        assert np.corrcoef(change, found.scores[i])[0, 1] > 0.9999


class TestHardCases:
    """Finite, sensible scores where the regression is degenerate."""

    def scores(self, where, model, x, y, **options):
        states = [model.state_dict()]
        return trak.attribute(
            model, "image_classification", states, [(x, y)], [(x, y)], where, progress=False, **options
        ).scores

    def test_more_features_than_examples(self, tmp_path):
        model, _, data = images()
        found = self.scores(tmp_path, model, *data[0], proj_dim=4096)
        assert np.isfinite(found).all()
        assert (found.argmax(axis=0) == np.arange(8)).mean() > 0.9

    def test_duplicate_examples_get_equal_scores(self, tmp_path):
        model, _, data = images()
        x, y = (t[[0, 1, 2, 0, 1, 2]] for t in data[0])
        found = self.scores(tmp_path, model, x, y, proj_dim=32)
        assert relative_error(found[:3], found[3:]) < 1e-5

    def test_single_example(self, tmp_path):
        model, _, data = images()
        found = self.scores(tmp_path, model, *(t[:1] for t in data[0]), proj_dim=32)
        assert found.shape == (1, 1)
        assert np.isfinite(found).all()
        assert found[0, 0] > 0

    def test_dead_layer_changes_nothing(self, tmp_path):
        class WithDead(nn.Module):
            def __init__(self, live):
                super().__init__()
                self.live, self.dead = live, nn.Linear(3, 3)

            def forward(self, x):
                return self.live(x) + 0 * self.dead(torch.zeros(len(x), 3))

        model, _, data = images()
        found = self.scores(tmp_path / "a", WithDead(model), *data[0], projector="identity", lambda_reg=0.1)
        alone = self.scores(tmp_path / "b", model, *data[0], projector="identity", lambda_reg=0.1)
        assert relative_error(found, alone) < 1e-5

    def test_all_gradients_zero_gives_zero_scores(self, tmp_path):
        class Constant(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(2))

            def forward(self, x):
                return torch.zeros(len(x), 2) + 0 * self.weight

        found = self.scores(tmp_path, Constant(), torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), proj_dim=8)
        assert (found == 0).all()

    def test_no_regularisation_and_interpolation_is_refused_in_plain_words(self, tmp_path):
        model, _, data = images()
        with pytest.raises(ValueError, match=r"singular.*interpolates.*damping=3"):
            self.scores(tmp_path, model, *data[0], proj_dim=64, lambda_reg=0.0)


def table_of(features, r=None, dtype="float32"):
    import zarr

    n, k = features.shape
    table = Table.create(zarr.create_group(MemoryStore()), n, k, dtype)
    ones = np.ones(n, np.float32)
    table.write(
        np.arange(n),
        RowValues(features, ones, ones, ones if r is None else r, np.zeros(n, np.uint64)),
    )
    return table


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("weighting", ["ggn", "identity"])
def test_gram_equals_dense_product(k, weighting, monkeypatch):
    monkeypatch.setattr(sys.modules[gram.__module__], "_BLOCK_ROWS", 6)
    rng = np.random.default_rng(0)
    phi, r = rng.normal(size=(31, k)).astype(np.float32), rng.random(31).astype(np.float32)
    w = r if weighting == "ggn" else np.ones(31)
    expected = phi.astype(np.float64).T @ np.diag(w) @ phi.astype(np.float64)
    found = gram(table_of(phi, r), weighting)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (found == found.T).all()


def test_gram_refuses_negative_curvature():
    with pytest.raises(ValueError, match=r"not convex.*-1.*example 2.*identity"):
        gram(table_of(np.ones((4, 2), np.float32), np.array([1, 1, -1, 1], np.float32)), "ggn")


def test_gram_of_large_gradients_in_half_precision_does_not_overflow():
    phi = np.full((50, 3), 6e4, np.float32)
    np.testing.assert_allclose(gram(table_of(phi, dtype="float16"), "identity"), np.full((3, 3), 50 * 3.6e9), rtol=1e-3)


def test_damping_means_the_same_at_every_scale_and_size():
    matrix = torch.eye(5, dtype=torch.float64)
    assert Damping(2.0).of(matrix) == 2.0
    assert Damping(2.0).of(matrix * 1e9) == 2e9
    assert Damping(0.5, absolute=True).of(matrix * 1e9) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 1.0), "not both"),
        ((-1.0, None), "damping must be 0 or more.*-1"),
        ((None, float("nan")), "lambda_reg.*nan"),
    ],
)
def test_damping_refuses_what_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Damping.make(*arguments)


@given(k=st.integers(1, 12), m=st.integers(1, 5), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_solve_equals_explicit_inverse(k, m, seed):
    rng = np.random.default_rng(seed)
    a, targets = rng.normal(size=(k + 3, k)), rng.normal(size=(m, k))
    matrix = a.T @ a
    expected = np.linalg.inv(matrix + 0.1 * np.trace(matrix) / k * np.eye(k)) @ targets.T
    found = solve(torch.from_numpy(matrix), torch.from_numpy(targets), Damping(0.1))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8, atol=1e-10)


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=30), k=st.integers(1, 30), columns=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_top_of_ties_takes_the_lower_index_first(values, k, columns):
    scores = torch.tensor(values, dtype=torch.float32).repeat(columns, 1)
    value, index = _stable_top(scores, k)
    expected = np.argsort(-np.array(values), kind="stable")[:k]
    assert (index.numpy() == expected).all()
    assert (value[0].numpy() == np.array(values)[expected]).all()


@pytest.mark.parametrize("bottom", [False, True])
@pytest.mark.parametrize("k", [1, 5, 23])
@pytest.mark.parametrize("budget", [2_000, 10**9])
def test_streamed_top_equals_sorting_all_scores(tmp_path, monkeypatch, budget, k, bottom):
    monkeypatch.setattr("trak.store.table.CHUNK_BYTES", 600)
    model, task, data = images()
    found = trak.attribute(model, task, varied(model, 2), data, data, tmp_path, proj_dim=16, progress=False)
    found.scorer.__init__(found.experiment, [0, 1], ScoringConfig(Damping()), memory_budget=budget)
    top = found.top(k, bottom)
    order = np.argsort(found.scores if bottom else -found.scores, axis=0, kind="stable")[:k].T
    expected = np.take_along_axis(found.scores.T, order, axis=1)
    assert top.indices.shape == top.scores.shape == (23, k)
    np.testing.assert_allclose(top.scores, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(found.scores.T, top.indices, axis=1), expected, rtol=1e-4, atol=1e-6)


def test_of_equal_scores_in_several_blocks_the_lower_index_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr("trak.store.table.CHUNK_BYTES", 64)
    config = StoreConfig(40, 4, {"kind": "sketch", "seed": 0}, "float32", {"w": [4]}, {"name": "fake"})
    store = FeatureStore.create(tmp_path, config)
    values = np.array([1, 2, 0, 2, 3] * 8, np.float32)
    ones = np.ones(40, np.float32)
    features = np.repeat(values[:, None], 4, axis=1)
    store.add_checkpoint(0, "w").write(np.arange(40), RowValues(features, ones, ones, ones, np.arange(40, dtype="u8")))
    store.finalize(0, "identity", np.eye(4))
    experiment = store.add_experiment("t", 1)
    experiment.add_targets(0).write(
        np.arange(1), RowValues(features[:1], ones[:1], ones[:1], ones[:1], np.zeros(1, "u8"))
    )
    for bottom, sign in ((False, -1), (True, 1)):
        found = Scorer(experiment, [0], ScoringConfig(Damping(3.0), "identity")).top(TopKQuery(17, bottom))
        assert found.indices[0].tolist() == np.argsort(sign * values, kind="stable")[:17].tolist()


def test_top_refuses_a_k_beyond_the_training_set(tmp_path):
    model, task, data = images()
    found = trak.attribute(model, task, [model.state_dict()], data, data, tmp_path, proj_dim=16, progress=False)
    for k in (0, 24):
        with pytest.raises(ValueError, match=f"between 1 and the number of training examples, 23, got {k}"):
            found.top(k)


def test_config_refuses_sizes_that_make_no_sense():
    good = {"train_set_size": 3, "proj_dim": 4, "projector": {}, "dtype": "float32", "parameters": {}, "task": {}}
    for name, value in (("train_set_size", 0), ("train_set_size", 2.5), ("proj_dim", -1), ("dtype", "int4")):
        with pytest.raises(ValueError, match=f"{name} must be.*{value}"):
            StoreConfig(**{**good, name: value})
