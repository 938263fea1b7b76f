"""Models within what trainers put around them."""

import numpy as np
import pytest
import torch
from hugging_face import Named, assert_same_state, bert, by_hand, scores
from torch import nn

import trak
import trak.baselines


class Prepared:
    """What accelerate, torch.compile and torch's parallel wrappers return."""

    @staticmethod
    def accelerate_bf16(model):
        accelerate = pytest.importorskip("accelerate")
        accelerate.state.AcceleratorState._reset_state(True)
        try:
            return accelerate.Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
        finally:
            accelerate.state.AcceleratorState._reset_state(True)

    @staticmethod
    def accelerate_bf16_compiled(model):
        return Prepared.accelerate_bf16(torch.compile(model))

    @staticmethod
    def accelerate(model):
        return pytest.importorskip("accelerate").Accelerator(cpu=True).prepare(model)

    @staticmethod
    def compiled(model):
        return torch.compile(model)

    @staticmethod
    def parallel(model):
        return nn.DataParallel(model)

    @staticmethod
    def ddp(model):
        return nn.parallel.DistributedDataParallel(model)

    @staticmethod
    def compiled_ddp(model):
        return torch.compile(nn.parallel.DistributedDataParallel(model))


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", [name for name in vars(Prepared) if not name.startswith("_")])
def test_a_prepared_model_has_the_scores_of_the_bare_one_with_any_names_in_checkpoints(kind, group, tmp_path):
    bare, batches = bert(), by_hand()
    expected = scores(bare, batches, batches, tmp_path / "bare")
    prepared = getattr(Prepared, kind)(bert())
    forward, state = prepared.forward, {name: value.clone() for name, value in prepared.state_dict().items()}
    for number, weights in enumerate((prepared, state, bare.state_dict())):
        found = scores(prepared, batches, batches, tmp_path / str(number), weights)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores(bare, batches, batches, tmp_path / "names", state), expected)
    assert prepared.forward == forward
    assert_same_state(prepared.state_dict(), state)
    # One store serves both.
    np.testing.assert_array_equal(scores(prepared, batches, batches, tmp_path / "bare"), expected)


def test_a_baseline_of_a_model_in_mixed_precision_is_that_of_the_bare_one():
    batches = [(torch.rand(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3)]
    weights = [Named().state_dict()]
    expected, found = (
        trak.baselines.GradientDot()
        .attribute(model, "image_classification", weights, batches, batches, progress=False)
        .scores
        for model in (Named(), Prepared.accelerate_bf16(Named()))
    )
    np.testing.assert_array_equal(found, expected)


def test_a_model_with_a_module_of_that_name_keeps_its_names(tmp_path):
    model = nn.Sequential()
    model.add_module("module", nn.Linear(4, 3))
    batch = [(torch.rand(5, 4), torch.arange(5) % 3)]
    scores(model, batch, batch, tmp_path, task="image_classification")
    scores(model, batch, batch, tmp_path / "ddp", {f"module.{n}": v for n, v in model.state_dict().items()},
           task="image_classification")  # fmt: skip
