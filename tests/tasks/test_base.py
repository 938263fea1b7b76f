"""The base of all tasks: weights derived from losses, and the record in a store."""

import numpy as np
import pytest
import torch
from task_contract import ClassificationContract, images
from torch import nn

import trak
from trak.baselines import GradientDot
from trak.baselines.shapley import DataShapley
from trak.evaluation.retraining.runs import TrainingRun
from trak.evaluation.retraining.training_spec import TrainingSpec
from trak.tasks import (
    TASKS,
    ImageClassification,
    Regression,
    Task,
    make_task,
    register_task,
)


class TestUsersOwnTask(ClassificationContract):
    """Poisson regression: ℓ(f) = exp(f) - 2f."""

    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch):
        monkeypatch.delitem(TASKS, "counts", raising=False)

        @register_task("counts")
        class Counts(Task):
            def output(self, model, batch):
                return model(batch["x"])[:, 0]

            def loss(self, output):
                return output.exp() - 2 * output

        yield
        del TASKS["counts"]

    def task(self):
        return make_task("counts")

    def batch(self, count):
        return {"x": images(count)}

    def expected_output(self, model, batch):
        return model(batch["x"]).detach().numpy()[:, 0]

    def expected_loss(self, f):
        return np.exp(f) - 2 * f

    def expected_weights(self, f):
        return 2 - np.exp(f), np.exp(f)


@pytest.mark.parametrize("task", [ImageClassification(), ImageClassification(1e-3)], ids=["T=1", "T=0.001"])
def test_weights_of_a_margin_stay_accurate_in_float32_however_confident(task):
    f = torch.linspace(-80, 80, 321)
    q, r = task.weights(nn.Identity(), None, f)
    exact = f.double().numpy()
    small = np.exp(-np.abs(exact))
    np.testing.assert_allclose(q.numpy(), np.where(exact > 0, small, 1) / (1 + small), rtol=1e-5)
    np.testing.assert_allclose(r.numpy(), small / (1 + small) ** 2, rtol=1e-5)


def test_weights_of_a_margin_stay_finite_at_any_size():
    f = torch.tensor([-1e30, -1e4, -200.0, 0.0, 200.0, 1e4, 1e30])
    q, r = ImageClassification().weights(nn.Identity(), None, f)
    assert q.tolist() == [1, 1, 1, 0.5, 0, 0, 0]
    assert r.tolist() == [0, 0, 0, 0.25, 0, 0, 0]


@pytest.mark.parametrize(
    "loss, shape",
    [(lambda f: f.square().mean(), r"\(\)"), (lambda f: f.square().sum(0, keepdim=True), r"\(1,\)")],
)
def test_loss_that_is_not_elementwise_is_refused_with_its_shape(loss, shape):
    class Reduced(Regression):
        def loss(self, output):
            return loss(output)

    with pytest.raises(TypeError, match=rf"Reduced.loss must be elementwise: .*\(4,\) and returned {shape}"):
        Reduced().weights(nn.Identity(), None, torch.ones(4))


def test_loss_linear_in_the_output_has_no_curvature():
    class Linear(Regression):
        def loss(self, output):
            return 3 * output

    q, r = Linear().weights(nn.Identity(), None, torch.ones(4))
    assert (q.tolist(), r.tolist()) == ([-3] * 4, [0] * 4)


def test_a_subclass_is_not_recorded_under_its_parents_name():
    class Scaled(ImageClassification):
        def output(self, model, batch):
            return 2 * super().output(model, batch)

    assert Scaled().describe()["name"].endswith("Scaled")
    assert ImageClassification().describe() == {"name": "image_classification", "settings": {"temperature": 1.0}}


def test_settings_json_cannot_hold_are_recorded_by_type_and_tensors_by_their_values():
    def described(scale):
        task = Regression()
        task.scale, task.sizes, task.table, task._cache = scale, (1, 2), {(1, 2): 3}, object()
        return task.describe()

    settings = described(torch.ones(2))["settings"]
    assert {**settings, "scale": None} == {"scale": None, "sizes": [1, 2], "table": "dict"}
    assert described(torch.ones(2))["settings"] == settings
    assert described(torch.zeros(2))["settings"] != settings


@pytest.mark.parametrize("loss", [lambda f: f.abs(), lambda f: -f, lambda f: (1 - f).clamp(min=0)])
def test_piecewise_linear_losses_have_no_curvature(loss):
    class Linear(Regression):
        def loss(self, output):
            return loss(output)

    f = torch.tensor([-2.0, 0.5, 3.0])
    q, r = Linear().weights(nn.Identity(), None, f)
    assert torch.equal(r, torch.zeros(3))
    assert r.numpy().shape == q.numpy().shape == (3,)


def test_loss_that_is_no_function_of_its_argument_is_refused():
    class Constant(Regression):
        def loss(self, output):
            return torch.ones(len(output))

    with pytest.raises(TypeError, match="computed from its argument by torch operations"):
        Constant().weights(nn.Identity(), None, torch.ones(2))


class Prepared(ImageClassification):
    """Notes which weights it was prepared for, in which mode, and that this was before its outputs were asked for."""

    def __init__(self):
        super().__init__()
        self._seen, self._current = [], None

    def prepare(self, model):
        assert not model.training
        self._current = model[0].bias.detach().clone()
        self._seen.append(round(float(self._current[0])))

    def output(self, model, batch):
        with torch.no_grad():
            same = model[0].bias.detach() == self._current
        return super().output(model, batch).masked_fill(~same.all(), torch.nan)


class TestPrepare:
    def model(self, first=0.0):
        model = nn.Sequential(nn.Linear(3, 2))
        with torch.no_grad():
            model[0].bias[0] = first
        return model

    def states(self):
        return [self.model(first).state_dict() for first in (1.0, 2.0)]

    def batch(self):
        return torch.randn(4, 3), torch.tensor([0, 1, 0, 1])

    def test_by_the_traker_at_every_load(self, tmp_path):
        task, data = Prepared(), [self.batch()]
        trak.attribute(self.model(), task, self.states(), data, data, tmp_path, proj_dim=4, progress=False)
        assert task._seen == [1, 1, 2, 2]

    def test_by_baselines(self):
        task, data = Prepared(), [self.batch()]
        GradientDot(proj_dim=4).attribute(self.model(), task, self.states(), data, data, progress=False)
        assert task._seen == [1, 2]

    def test_for_retrained_models(self):
        task = Prepared()
        recipe = TrainingSpec(lambda indices, seed: self.model(seed).train(), task, [self.batch()])
        for seed in (3, 4):
            assert np.isfinite(recipe.measure(TrainingRun(np.arange(2), seed)).outputs).all()
        assert task._seen == [3, 4]

    def test_for_shapley_values(self):
        task, data = Prepared(), [self.batch()]
        train = lambda indices, seed: self.model(len(indices))  # noqa: E731
        DataShapley(train, permutations=1, tolerance=0).attribute(None, task, [], data, data, progress=False)
        assert sorted(set(task._seen)) == [0, 1, 2, 3, 4]
