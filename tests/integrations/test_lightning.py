"""The callbacks of both Lightning packages."""

import importlib

import numpy as np
import pytest
import torch
from hugging_face import SMALL, assert_same_state
from torch import nn

import trak
from trak.integrations.transformers import checkpoints

X = torch.rand(22, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(22) % 3


def lightning_module(package):
    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

        def forward(self, x):
            return self.model(x)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, _, dataloader_idx=0):
            self.log("loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Module()


def fitted(package, folder, callback, validate=1, **options):
    data = torch.utils.data.TensorDataset(X, Y)
    train = torch.utils.data.DataLoader(data, 5, shuffle=True)
    val = [torch.utils.data.DataLoader(torch.utils.data.Subset(data, range(6)), 5)] * validate
    module = lightning_module(package)
    made = package.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback], default_root_dir=folder, **options,
    )  # fmt: skip
    made.fit(module, train, val[0] if len(val) == 1 else val or None)
    return module


@pytest.fixture(params=["lightning", "pytorch_lightning"])
def package(request):
    name = request.param
    found = pytest.importorskip("lightning.pytorch" if name == "lightning" else name)
    return found, importlib.import_module(f"trak.integrations.{name}").TrakCallback


def test_lightnings_run_that_ended_is_not_trained_again_if_it_is_reused(package, tmp_path):
    lightning, callback_class = package
    found = []
    for _ in range(2):
        callback = callback_class(tmp_path / "runs", reuse=True, task="image_classification", **SMALL)
        found.append((fitted(lightning, tmp_path, callback).state_dict(), callback))
        torch.manual_seed(5)
    (trained, first), (again, second) = found
    assert_same_state(again, trained)
    np.testing.assert_array_equal(first.attribution.scores, second.attribution.scores)


@pytest.mark.parametrize("name", [None, "model"])
def test_what_lightnings_callback_finds_equals_attribution_by_hand(package, name, tmp_path):
    lightning, callback_class = package
    callback = callback_class(tmp_path / "runs", module=name, epochs=[1], task="image_classification", **SMALL)
    assert isinstance(callback, lightning.Callback)
    module = fitted(lightning, tmp_path, callback)
    attributed = module.model if name else module
    assert sorted(path.name for path in (tmp_path / "runs/run-0").glob("*.pt")) == ["epoch-1.pt", "final.pt"]
    (final,) = checkpoints(tmp_path / "runs")
    assert_same_state(torch.load(final), attributed.state_dict())
    batches = list(zip(X.split(5), Y.split(5), strict=True))
    fresh = lightning_module(lightning)
    expected = trak.attribute(
        fresh.model if name else fresh, "image_classification", final, batches, [(X[:5], Y[:5]), (X[5:6], Y[5:6])],
        tmp_path / "hand", **SMALL,
    )  # fmt: skip
    np.testing.assert_array_equal(callback.attribution.scores, expected.scores)


def test_lightnings_callback_says_what_can_not_be_done_before_training(package, tmp_path):
    lightning, callback_class = package
    with pytest.raises(ValueError, match=r"module='net' is no module of Module; use one of its modules: model"):
        fitted(lightning, tmp_path, callback_class(tmp_path, module="net"))
    with pytest.raises(ValueError, match=r"evaluates nothing .* give the Trainer a validation loader"):
        fitted(lightning, tmp_path, callback_class(tmp_path, task="image_classification"), validate=0)
    with pytest.raises(ValueError, match=r"2 validation loaders, and it is not said which .* pass targets="):
        fitted(lightning, tmp_path, callback_class(tmp_path, task="image_classification"), validate=2)
    assert not list(tmp_path.glob("run-0/*.pt"))


def test_what_was_trained_is_kept_where_no_targets_were_ever_loaded(package, tmp_path):
    lightning, callback_class = package
    options = {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 5}
    with pytest.raises(ValueError, match=r"never loaded its targets.* pass targets="):
        fitted(lightning, tmp_path, callback_class(tmp_path, task="image_classification"), **options)
    assert checkpoints(tmp_path)
