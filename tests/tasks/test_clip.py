"""The task of contrastive image-text models, against the formulas written out over single pairs."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from clip_models import (
    all_margins,
    cheap,
    data,
    embedded,
    make,
    pairs,
    without_caption,
)
from task_contract import ClassificationContract, sigmoid
from torch import nn

import trak
from trak.gradients import choose_engine, differentiable
from trak.gradients.base import collect
from trak.inputs import batches
from trak.modelout_functions import CLIPModelOutput
from trak.projectors import make_projector
from trak.tasks import CLIP, make_task
from trak.testing.reference import double


class ClipContract(ClassificationContract):
    """With the bank as large as the simulated batch: every other example is a negative."""

    name: str

    def model(self):
        return make(self.name).double()

    def bank(self):
        return double(data(self.name, 12))

    def batch(self, count):
        return batches.take(self.bank(), 0, count)

    def task(self):
        return CLIP([self.bank()], batch_size=12)

    def margins(self, count):
        return all_margins(self.model(), self.batch(count), self.bank()).detach().numpy()

    def directions(self, f):
        """Margins that add up to f, and differ as those of the first examples do."""
        difference = np.diff(self.margins(len(f)), axis=1)[:, 0]
        return (f - difference) / 2, (f + difference) / 2

    def expected_output(self, model, batch):
        return all_margins(model, batch, self.bank(), constants_of=self.model()).sum(1).detach().numpy()

    def expected_loss(self, f):
        return sum(np.logaddexp(0, -margin) for margin in self.directions(f))

    def expected_weights(self, f):
        margins = self.directions(f)
        q = sum(sigmoid(-margin) for margin in margins) / 2
        return q, sum(sigmoid(margin) * sigmoid(-margin) for margin in margins) / 4

    def test_loss_is_the_formula_elementwise(self):
        f = torch.linspace(-5, 5, 11, dtype=torch.float64)
        np.testing.assert_allclose(self.task().loss(f).numpy(), 2 * np.logaddexp(0, -f.numpy() / 2), rtol=1e-12)

    def test_loss_of_the_margins_is_that_of_training(self):
        model, bank = self.model(), self.bank()
        x, y, scale, bias = embedded(model, bank)
        logits, n = scale * x @ y.T, batches.size(bank)
        if bias is None:
            expected = sum(-m.log_softmax(1).diagonal() for m in (logits, logits.T))
        else:
            signs = 2 * torch.eye(n, dtype=logits.dtype) - 1
            terms = -nn.functional.logsigmoid(signs * (logits + bias))
            expected = terms.sum(0) + terms.sum(1)
        found = nn.functional.softplus(-self.task().margins(model, bank)).sum(1)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)

    def test_softening_divides_both_margins(self):
        model, batch, task = self.model(), self.batch(7), self.task()
        f = task.output(model, batch).detach()
        q, r = task.weights_at_temperature(model, batch, f, 3.0)
        margins = self.margins(7) / 3
        np.testing.assert_allclose(q.numpy(), 3 * sigmoid(-margins).mean(1), rtol=1e-9)
        np.testing.assert_allclose(r.numpy(), (sigmoid(margins) * sigmoid(-margins)).sum(1) / 4, rtol=1e-9)

    @pytest.mark.parametrize("count", [1, 7])
    def test_gradients_by_the_automatic_engine_equal_a_loop_to_1e_5(self, count):
        model, bank = make(self.name), data(self.name, 12)
        batch, task = batches.take(bank, 0, count), CLIP([bank], batch_size=12)
        own = dict(model.named_parameters())
        task.prepare(model)
        with differentiable(model, list(own)), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*one example at a time")
            engine = choose_engine("auto", model, task, list(own), batch)
            found = collect(engine, batch)
        rows = [all_margins(model, batches.take(batch, i, i + 1), bank).sum() for i in range(count)]
        truth = [torch.autograd.grad(row, list(own.values()), allow_unused=True) for row in rows]
        size = math.sqrt(sum(float(g.norm()) ** 2 for row in truth for g in row if g is not None))
        for j, (name, p) in enumerate(own.items()):
            expected = torch.stack([torch.zeros_like(p) if row[j] is None else row[j] for row in truth])
            assert float((found[name] - expected).norm()) <= 1e-5 * size, name

    def test_an_example_has_the_same_numbers_in_every_batch(self):
        model, batch, task = self.model(), self.batch(7), self.task()
        f = task.output(model, batch)
        whole = (f, *task.weights_at_temperature(model, batch, f, 3.0))
        one = batches.take(batch, 4, 5)
        f = task.output(model, one)
        for alone, together in zip((f, *task.weights_at_temperature(model, one, f, 3.0)), whole, strict=True):
            torch.testing.assert_close(alone, together[4:5], rtol=1e-12, atol=1e-12)
            assert float(alone.detach().abs()) > 0

    def test_right_are_those_nearest_to_each_other(self):
        model, bank = self.model(), self.bank()
        x, y, *_ = embedded(model, bank)
        cosines, places = x @ y.T, torch.arange(12)
        expected = (cosines.argmax(0) == places) & (cosines.argmax(1) == places)
        assert torch.equal(self.task().correct(model, bank, self.task().output(model, bank)), expected)

    def test_scores_equal_the_float64_reference(self, tmp_path):
        model, bank = make(self.name), data(self.name, 9)
        torch.manual_seed(1)
        states = [{k: v + 0.1 * torch.randn_like(v) if v.is_floating_point() else v for k, v in s.items()}
                  for s in [model.state_dict()] * 2]  # fmt: skip
        train = [batches.take(bank, 0, 5), batches.take(bank, 5, 9)]
        projector = make_projector("sketch", 16, 3)
        found = trak.attribute(
            model, CLIP(train, batch_size=9), states, train, train[:1], tmp_path, projector=projector,
            normalize_checkpoints=False, progress=False,
        ).scores  # fmt: skip
        kernels, qs, exact, bank = [], [], copy.deepcopy(model).double(), double(bank)
        for model_id, state in enumerate(states):
            exact.load_state_dict(state)
            own = dict(exact.named_parameters())
            margins = all_margins(exact, bank, bank)
            gradients = [torch.autograd.grad(f, list(own.values()), retain_graph=True, allow_unused=True)
                         for f in margins.sum(1)]  # fmt: skip
            stacked = {
                name: torch.stack([torch.zeros_like(p) if row[j] is None else row[j] for row in gradients])
                for j, (name, p) in enumerate(own.items())
            }
            phi, softened = projector.project(stacked, model_id).numpy(), margins.detach().numpy() / 3
            r = (sigmoid(softened) * sigmoid(-softened)).sum(1) / 4
            gram = phi.T @ np.diag(r) @ phi
            inverse = np.linalg.inv(gram + 3 * np.trace(gram) / 16 * np.eye(16))
            kernels.append(phi @ inverse @ phi[:5].T)
            qs.append(3 * sigmoid(-softened).mean(1))
        truth = np.mean(kernels, 0) * np.mean(qs, 0)[:, None]
        assert np.abs(found - truth).max() / np.abs(truth).max() < 1e-4


class TestClipModel(ClipContract):
    name = "CLIPModel"


class TestSiglipModel(ClipContract):
    name = "SiglipModel"


class TestOpenClip(ClipContract):
    name = "open_clip"


class TestForwardAlone(ClipContract):
    name = "forward alone, tuple"


class TestForwardAloneDict(ClipContract):
    name = "forward alone, dict"


class TestSettings:
    def test_what_decides_the_numbers_is_recorded(self):
        described = [
            CLIP([cheap(10)], 6).describe(),
            CLIP([cheap(10)], 7).describe(),
            CLIP([cheap(10)], 6, seed=1).describe(),
            CLIP([cheap(10)], 6, temperature=0.1).describe(),
            CLIP([cheap(10, seed=1)], 6).describe(),
        ]
        assert all(one["name"] == "clip" for one in described)
        assert len({str(one) for one in described}) == 5
        assert described[0] == CLIP([cheap(10)], 6).describe()

    def test_a_store_made_with_another_bank_is_refused(self, tmp_path):
        model, train = make("open_clip"), [cheap(10)]
        trak.TRAKer(model, CLIP(train, 6), 10, tmp_path, proj_dim=8)
        with pytest.raises(ValueError, match="task settings bank="):
            trak.TRAKer(model, CLIP([cheap(12, seed=1)], 6), 10, tmp_path, proj_dim=8)

    def test_temperature_replaces_the_models_scale(self):
        model, bank = make("open_clip").double(), double(cheap(6))
        found = CLIP([bank], 6, temperature=0.25).margins(model, bank)
        with torch.no_grad():
            model.logit_scale.fill_(math.log(4))
        torch.testing.assert_close(found, all_margins(model, bank, bank), rtol=1e-9, atol=1e-10)

    def test_a_rerun_gives_the_same_bits(self, tmp_path):
        model, train = make("open_clip"), [cheap(10)]
        found = [
            trak.attribute(
                model, CLIP(train, 6), model.state_dict(), train, train, tmp_path / name, progress=False
            ).scores
            for name in "ab"
        ]
        assert np.array_equal(*found)


@pytest.mark.parametrize("bias", [-300.0, 0.0, 300.0])
@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel"])
def test_confident_models_have_finite_outputs_and_gradients(name, bias):
    model, bank = make(name), data(name, 12)
    with torch.no_grad():
        model.logit_scale.fill_(4.6)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(bias / 3)
    task = CLIP([bank], 12)
    f = task.output(model, bank)
    gradients = torch.autograd.grad(f.sum(), list(model.parameters()), allow_unused=True)
    assert torch.isfinite(f).all()
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert all(torch.isfinite(t).all() for t in task.weights(model, bank, f))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 1}, "batch_size must be an integer, at least 2, got 1"),
        ({"batch_size": 2.5}, "got 2.5"),
        ({"temperature": 0}, "temperature must be positive.*got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CLIP([cheap(9)], **arguments)


def test_an_empty_caption_beyond_the_first_batch_stops_the_run(tmp_path):
    train = [pairs(6), without_caption(6, 2)]
    with pytest.raises(ValueError, match="caption in row 2 of the batch is empty"):
        trak.attribute(
            make("CLIPModel"), CLIP(train[:1], 6), make("CLIPModel").state_dict(), train, train[:1], tmp_path,
            proj_dim=8, progress=False,
        )  # fmt: skip


def test_a_model_without_a_scale_needs_a_temperature():
    model = make("open_clip")
    model.logit_scale = None
    with pytest.raises(TypeError, match="OpenClip has no logit_scale; give the task a temperature"):
        CLIP([cheap(6)], 6).output(model, cheap(3))
    assert CLIP([cheap(6)], 6, temperature=1).output(model, cheap(3)).shape == (3,)


def test_without_a_bank_the_error_says_what_to_write(tmp_path):
    model, said = make("open_clip"), r"task=trak\.tasks\.CLIP\(bank=train_loader, batch_size=300\)"
    for use in (
        lambda: trak.TRAKer(model, "clip", 10, tmp_path),
        lambda: trak.TRAKer(model, CLIPModelOutput(), 10, tmp_path),
        lambda: make_task("clip").prepare(model),
        lambda: make_task(CLIPModelOutput).output(model, cheap(3)),
    ):
        with pytest.raises(ValueError, match=said):
            use()
