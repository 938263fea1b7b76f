"""docs/tasks.md: what its code defines is right."""

import re

import pytest
import torch
from models import images
from pages import DOCS, blocks, executed
from torch import nn

from trak.gradients import choose_engine, differentiable
from trak.gradients.base import collect
from trak.tasks import TASKS
from trak.testing.reference import gradients

pytest.importorskip("transformers")

PAGE = DOCS / "tasks.md"


@pytest.fixture(scope="module")
def defined(tmp_path_factory):
    """The names that the page's blocks of code define, run one after the other."""
    with executed(PAGE, tmp_path_factory.mktemp("page")) as names:
        yield names


def test_every_task_is_in_the_table():
    table = re.findall(r"^\| `(\w+)`", PAGE.read_text().split("\n## ")[0], flags=re.MULTILINE)
    known = {name for name, task in TASKS.items() if task.__module__.startswith("trak.")}
    assert set(table) == known - {"iterative_image_classification"}


def test_tasks_of_ones_own_take_less_than_thirty_lines():
    for _, block in blocks(PAGE):
        assert block.count("\n") <= 30


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.times, self.inner, self.outer = nn.Embedding(10, 4), nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x, t):
        return self.outer(torch.tanh(self.inner(x) + self.times(t)[:, :, None, None]))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.classes, self.boxes = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x):
        rows = torch.tanh(self.features(x[:, 0]))
        corner = self.boxes(rows)
        return self.classes(rows), torch.cat((corner, corner + 1), -1)


def own_tasks(defined):
    pictures = images(n=5).batches[0][0][:5]
    boxes = torch.tensor([[0.1, 0.1, 1.1, 1.1]]).expand(5, 4).contiguous()
    noises = (pictures, torch.randint(10, (5, 3)), torch.randn(5, 3, *pictures.shape[1:]))
    yield Denoiser(), defined["Denoising"](torch.linspace(0.9, 0.1, 10)), noises
    yield Detector(), defined["ObjectMargin"](), (pictures, boxes, torch.arange(5) % 3)


def test_tasks_of_ones_own_have_the_gradients_of_the_loop_by_the_fast_engine(defined):
    torch.manual_seed(0)
    for model, task, batch in own_tasks(defined):
        names = [name for name, _ in model.named_parameters()]
        with differentiable(model, names):
            engine = choose_engine("auto", model, task, names, batch)
            found = collect(engine, batch)
        assert engine.name == "hooks"
        for name, expected in gradients(model, task, batch).items():
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_the_output_of_an_image_is_minus_the_mean_loss_of_its_noises(defined):
    torch.manual_seed(0)
    model, task, (pictures, times, noise) = next(own_tasks(defined))
    for i, f in enumerate(task.output(model, (pictures, times, noise)).tolist()):
        losses = []
        for t, e in zip(times[i], noise[i], strict=True):
            a = task.signal[t]
            found = model((a.sqrt() * pictures[i] + (1 - a).sqrt() * e)[None], t[None])
            losses.append(nn.functional.mse_loss(found[0], e).item())
        assert f == pytest.approx(-sum(losses) / 3)


def test_the_output_of_an_object_is_the_margin_at_the_box_that_covers_it(defined):
    logits = torch.tensor([[[0.0, 3.0], [0.0, -2.0]]])
    proposals = torch.tensor([[[5.0, 5.0, 6.0, 6.0], [0.0, 0.0, 2.0, 1.0]]])
    batch = (torch.zeros(1), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1]))
    assert defined["ObjectMargin"]().output(lambda _: (logits, proposals), batch).item() == -2
