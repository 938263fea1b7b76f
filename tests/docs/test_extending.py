"""docs/extending.md: its contracts pass, and the losses of its tasks are torch's."""

import re
import subprocess
import sys

import pytest
import torch
from pages import DOCS, blocks, executed
from torch import nn

import trak

PAGE = DOCS / "extending.md"
CLASS_WEIGHTS = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def defined(tmp_path_factory):
    """The names that the page's blocks of code define, run one after the other."""
    with executed(PAGE, tmp_path_factory.mktemp("page")) as names:
        yield names


@pytest.fixture
def logits():
    return torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


LABELS = torch.arange(7) % 3


def test_the_contracts_of_the_page_pass_when_its_code_is_a_test_file(tmp_path):
    (tmp_path / "test_page.py").write_text("\n\n".join(code for _, code in blocks(PAGE)))
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    passed = set(re.findall(r"::(Test\w+)::\S+ PASSED", done.stdout))
    assert passed == {
        "TestHuber", "TestCountSketch", "TestGeM", "TestBatchedBackward", "TestOutputSimilarity",
    }  # fmt: skip


def q_grad_f(task, logits, loss_temperature=1.0):
    """Q ∇f, which is minus the gradient of the loss that the task says, by the logits."""
    output = task.output(nn.Identity(), (logits, LABELS))
    q, r = task.weights_at_temperature(nn.Identity(), (logits, LABELS), output, loss_temperature)
    return q.unsqueeze(1) * torch.autograd.grad(output.sum(), logits)[0], q, r


def test_class_weights_give_the_gradient_of_torchs_loss_and_its_curvature(defined, logits):
    loss = nn.functional.cross_entropy(logits, LABELS, weight=CLASS_WEIGHTS, reduction="sum")
    found, _, r = q_grad_f(defined["Weighted"](CLASS_WEIGHTS), logits)
    torch.testing.assert_close(found, -torch.autograd.grad(loss, logits)[0])
    p = logits.softmax(1)[range(7), LABELS].detach()
    torch.testing.assert_close(r, CLASS_WEIGHTS[LABELS] * p * (1 - p))


@pytest.mark.parametrize("loss_temperature", [1.0, 3.0])
def test_class_weights_multiply_what_softening_makes_of_the_loss(defined, logits, loss_temperature):
    _, q, r = q_grad_f(trak.tasks.Classification(), logits, loss_temperature)
    _, weighted_q, weighted_r = q_grad_f(defined["Weighted"](CLASS_WEIGHTS), logits, loss_temperature)
    torch.testing.assert_close(weighted_q, CLASS_WEIGHTS[LABELS] * q)
    torch.testing.assert_close(weighted_r, CLASS_WEIGHTS[LABELS] * r)


def test_class_weights_are_recorded_and_change_the_scores(defined):
    records = [defined["Weighted"](w).describe() for w in (CLASS_WEIGHTS, CLASS_WEIGHTS, CLASS_WEIGHTS + 1)]
    assert records[0] == records[1] != records[2]
    assert not torch.allclose(*(torch.tensor(defined[name].scores) for name in ("plain", "weighted")))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_label_smoothing_has_the_slope_of_torchs_loss_along_the_logit_of_the_label(defined, logits, smoothing):
    loss = nn.functional.cross_entropy(logits, LABELS, label_smoothing=smoothing, reduction="sum")
    slope = torch.autograd.grad(loss, logits)[0]
    found, q, _ = q_grad_f(defined["Smoothed"](smoothing, 3), logits)
    rows = torch.arange(7)
    torch.testing.assert_close(found[rows, LABELS], -slope[rows, LABELS])
    delta = smoothing * 2 / 3
    torch.testing.assert_close(q, 1 - delta - logits.softmax(1)[rows, LABELS].detach())


def test_label_smoothing_is_torchs_loss_up_to_a_constant_while_the_other_classes_keep_their_shares(defined):
    task, others = defined["Smoothed"](0.2, 3), torch.tensor([0.3, -1.0], dtype=torch.float64)
    logits = torch.stack([torch.cat((torch.tensor([z]).double(), others)) for z in (-2.0, 0.0, 1.0, 5.0)])
    labels = torch.zeros(4, dtype=torch.long)
    exact = nn.functional.cross_entropy(logits, labels, label_smoothing=0.2, reduction="none")
    found = task.loss(task.output(nn.Identity(), (logits, labels)))
    torch.testing.assert_close(found - found[0], exact - exact[0])
