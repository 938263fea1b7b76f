"""The base of tasks whose examples hold several predictions."""

import itertools

import numpy as np
import pytest
import torch
from models import sentences
from task_contract import IdentityByKeyword
from token_tasks import (
    OUTPUTS,
)
from torch import nn

import trak
from trak.gradients import FunctionalEngine, HooksEngine, differentiable
from trak.gradients.base import collect
from trak.tasks import LanguageModeling, MultiLabel, Seq2Seq, TokenClassification, make_task
from trak.testing.reference import gradients


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("task", [TokenClassification, MultiLabel])
def test_one_prediction_alone_is_classified_as_such_however_sure(task, output):
    m = torch.linspace(-200, 200, 401)
    logits = torch.stack((torch.zeros_like(m), m), -1)[:, None] if task is TokenClassification else m[:, None]
    batch = (logits.requires_grad_(), torch.ones(len(m), 1, dtype=torch.long))
    model = IdentityByKeyword() if task is TokenClassification else nn.Identity()
    f = task(output).output(model, batch)
    expected = nn.functional.logsigmoid(m) if output == "cross_entropy" else m
    torch.testing.assert_close(f.detach(), expected, rtol=2e-6, atol=2e-6)
    (slope,) = torch.autograd.grad(f.sum(), logits)
    wanted = torch.sigmoid(-m) if output == "cross_entropy" else torch.ones_like(m)
    torch.testing.assert_close(slope.reshape(len(m), -1)[:, -1], wanted, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("surest", [5.0, 40.0, 200.0, 1e4])
def test_the_output_of_surest_sequences_is_accurate_in_float32(surest):
    m = torch.tensor([[surest, surest + 3, surest + 1]])
    logits = torch.stack((torch.zeros_like(m), m), -1).requires_grad_()
    f = TokenClassification().output(IdentityByKeyword(), (logits, torch.ones(1, 3, dtype=torch.long)))
    # The mean loss is e^-surest (1 + e^-3 + e^-1) / 3 as far as it counts.
    expected = surest - np.log((1 + np.exp(-3) + np.exp(-1)) / 3)
    assert f.item() == pytest.approx(expected, rel=1e-6, abs=3e-3 if surest < 10 else 1e-6)
    (slope,) = torch.autograd.grad(f.sum(), logits)
    assert torch.isfinite(slope).all()
    torch.testing.assert_close(slope[0, :, 1].sum(), torch.tensor(1.0), rtol=2e-3, atol=0)


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(2, 300, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(600).reshape(2, 300) % 9
    f = TokenClassification().output(IdentityByKeyword(), (logits, labels))
    assert f.dtype == torch.float32
    torch.testing.assert_close(f, TokenClassification().output(IdentityByKeyword(), (logits.float(), labels)))


def test_correct_says_whether_every_prediction_is_right():
    logits = torch.tensor([[[0.0, 1], [2, 0]], [[0, 1], [0, 2]], [[3, 1], [2, 0]]])
    labels = torch.tensor([[1, 0], [1, 0], [-100, 0]])
    batch = (logits, labels)
    assert TokenClassification().correct(IdentityByKeyword(), batch, None).tolist() == [True, False, True]
    yes = (logits[..., 1] - logits[..., 0], labels)
    assert MultiLabel().correct(nn.Identity(), yes, None).tolist() == [True, False, True]


def test_unknown_outputs_and_reductions_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown output 'margn': did you mean 'margin'\?"):
        LanguageModeling("margn")
    with pytest.raises(ValueError, match="unknown reduction 'max': use one of mean, sum"):
        Seq2Seq(reduction="max")


@pytest.mark.parametrize("task", [LanguageModeling, Seq2Seq, TokenClassification, MultiLabel])
def test_every_setting_is_recorded_and_two_tasks_share_none(task):
    made = [task(*pair) for pair in itertools.product(OUTPUTS, ("mean", "sum"))]
    described = [str(one.describe()) for one in made]
    assert len(set(described)) == 6
    assert task().describe() == {"name": task.name, "settings": {"output_kind": "margin", "reduction": "mean"}}


def test_a_loss_of_ones_own_gives_its_weights():
    class Squared(LanguageModeling):
        def loss(self, output):
            return (output - 1).square() / 2

    q, r = Squared().weights(nn.Identity(), None, torch.tensor([0.0, 3.0]))
    assert (q.tolist(), r.tolist()) == ([1, -2], [1, 1])


def test_curvature_weights_of_the_cross_entropy_are_the_identity(tmp_path):
    model, _, data = sentences(n=12)
    found = [
        trak.attribute(
            model, LanguageModeling("cross_entropy"), model.state_dict(), data, data[:1], tmp_path / weighting,
            weighting=weighting, proj_dim=16, progress=False,
        ).scores
        for weighting in ("ggn", "identity")
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("engine", [HooksEngine, FunctionalEngine])
@pytest.mark.parametrize("output", OUTPUTS)
def test_engines_equal_the_loop(engine, output):
    model, _, data = sentences(n=5)
    task, names = LanguageModeling(output), [name for name, _ in model.named_parameters()]
    with differentiable(model, names):
        found = collect(engine(model, task, names), data[0])
    for name, expected in gradients(model, task, data[0]).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


def test_tasks_say_whether_their_loss_is_a_function_of_the_output():
    having = {(o, r) for o, r in itertools.product(OUTPUTS, ("mean", "sum")) if LanguageModeling(o, r).has_loss}
    assert having == {("margin", "mean"), ("mean_margin", "mean"), ("cross_entropy", "mean"), ("cross_entropy", "sum")}


class Total(nn.Module):
    """The sum of a task's outputs, as a module whose parameters can be replaced."""

    def __init__(self, model, task):
        super().__init__()
        self.model, self.task = model, task

    def forward(self, batch):
        return self.task.output(self.model, batch).sum()


@pytest.mark.parametrize("output", OUTPUTS)
def test_forward_over_reverse_products_with_the_hessian_equal_the_hessian(output):
    model, _, data = sentences(n=3)
    weight, module = model.head.weight.detach().clone(), Total(model.requires_grad_(False), LanguageModeling(output))

    def total(weight):
        return torch.func.functional_call(module, {"model.head.weight": weight}, (data[0],))

    directions = torch.randn(2, *weight.shape, generator=torch.Generator().manual_seed(0))
    found = torch.func.vmap(lambda d: torch.func.jvp(torch.func.grad(total), (weight,), (d,))[1])(directions)
    hessian = torch.autograd.functional.hessian(total, weight)
    torch.testing.assert_close(found, torch.einsum("ijkl,dkl->dij", hessian, directions), rtol=1e-4, atol=1e-5)


def test_registered_names_make_their_tasks():
    for name, kind in {
        "language_modeling": LanguageModeling, "seq2seq": Seq2Seq, "multi_label": MultiLabel,
        "token_classification": TokenClassification,
    }.items():  # fmt: skip
        assert type(make_task(name)) is kind
