"""Callbacks in transformers' and Lightning's trainers."""

import importlib

import numpy as np
import pytest
import torch
from test_integrations import assert_same_state, bert, by_hand, scores, texts, tokenizer, transformers
from torch import nn

import trak
from trak.integrations import transformers as integration
from trak.integrations.transformers import TrakCallback, checkpoints

__all__ = ["tokenizer"]
SMALL = {"proj_dim": 16, "progress": False}


def trainer(folder, tokenizer, callback, seed=0, **options):
    options = {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "no", **options}
    arguments = transformers.TrainingArguments(
        str(folder / "out"), use_cpu=True, seed=seed, per_device_train_batch_size=4, per_device_eval_batch_size=4,
        report_to=[], disable_tqdm=True, learning_rate=1e-2, **options,
    )  # fmt: skip
    return transformers.Trainer(
        bert(seed), arguments, train_dataset=texts(), eval_dataset=texts([4, 6], 5), processing_class=tokenizer,
        callbacks=[callback],
    )  # fmt: skip


def test_what_the_callback_finds_equals_attribution_by_hand_of_the_trained_weights(tokenizer, tmp_path):
    callback = TrakCallback(tmp_path / "runs", epochs=True, task="text_classification", **SMALL)
    made = trainer(tmp_path, tokenizer, callback)
    made.train()
    assert sorted(path.name for path in (tmp_path / "runs/run-0").glob("*.pt")) == [
        "epoch-1.pt",
        "epoch-2.pt",
        "final.pt",
    ]
    (final,) = checkpoints(tmp_path / "runs")
    assert_same_state(torch.load(final), made.model.state_dict())
    assert_same_state(torch.load(checkpoints(tmp_path / "runs", epoch=2)[0]), made.model.state_dict())
    (first,) = checkpoints(tmp_path / "runs", epoch=1)
    assert not torch.equal(torch.load(first)["classifier.weight"], made.model.classifier.weight)
    expected = scores(bert(1), by_hand(), by_hand([4, 6], 5), tmp_path / "hand", final)
    np.testing.assert_array_equal(callback.attribution.scores, expected)


def test_several_runs_are_attributed_together(tokenizer, tmp_path):
    for run in (1, 0):
        made = trainer(tmp_path, tokenizer, TrakCallback(tmp_path / "runs", run), run, num_train_epochs=1)
        made.train()
    options = {"save_dir": tmp_path / "all", **SMALL}
    found = integration.attribute(made, "text_classification", tmp_path / "runs", **options)
    weights = [tmp_path / f"runs/run-{i}/final.pt" for i in (0, 1)]
    expected = scores(bert(), by_hand(), by_hand([4, 6], 5), tmp_path / "hand", weights)
    np.testing.assert_array_equal(found.scores, expected)


def test_mixed_precision_changes_no_score_of_the_same_weights(tokenizer, tmp_path):
    callback = TrakCallback(
        tmp_path / "runs", task="text_classification", targets=texts([4, 6], 5), save_dir=tmp_path / "s", **SMALL
    )
    trainer(tmp_path, tokenizer, callback, bf16=True, eval_strategy="no", max_steps=2).train()
    final = checkpoints(tmp_path / "runs")
    expected = scores(bert(1), by_hand(), by_hand([4, 6], 5), tmp_path / "hand", final)
    np.testing.assert_array_equal(callback.attribution.scores, expected)


def test_half_an_epoch_is_no_checkpoint_of_an_epoch(tokenizer, tmp_path):
    trainer(tmp_path, tokenizer, TrakCallback(tmp_path / "runs", epochs=True), max_steps=2, eval_strategy="no").train()
    assert [path.name for path in (tmp_path / "runs/run-0").iterdir()] == ["final.pt"]


def test_what_can_not_be_done_is_said_before_training(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"unknown task 'text_clasification': did you mean 'text_classification'"):
        TrakCallback(tmp_path, task="text_clasification")
    with pytest.raises(TypeError, match=r"proj_dim is for an attribution .* needs task="):
        TrakCallback(tmp_path, proj_dim=16)
    callback = TrakCallback(tmp_path / "runs", task="text_classification")
    with pytest.raises(ValueError, match=r"evaluates nothing .* pass targets=, or let the Trainer evaluate"):
        trainer(tmp_path, tokenizer, callback, eval_strategy="no").train()
    (tmp_path / "runs/run-0").mkdir(parents=True)
    (tmp_path / "runs/run-0/final.pt").touch()
    with pytest.raises(FileExistsError, match=r"run 0 ended before"):
        trainer(tmp_path, tokenizer, TrakCallback(tmp_path / "runs")).train()


def test_targets_have_to_be_named_where_the_trainer_evaluates_several_data_sets(tokenizer, tmp_path):
    sets, options = {"a": texts([4, 6], 5), "b": texts([3, 5, 7], 6)}, {"num_train_epochs": 1}
    callback = TrakCallback(tmp_path / "runs", task="text_classification", **SMALL)
    made = trainer(tmp_path, tokenizer, callback, **options)
    made.eval_dataset = sets
    with pytest.raises(ValueError, match=r"evaluates several data sets \(eval_a, eval_b\).* pass targets="):
        made.train()
    callback = TrakCallback(tmp_path / "runs", task="text_classification", targets=sets["a"], **SMALL)
    made = trainer(tmp_path, tokenizer, callback, **options)
    made.eval_dataset = sets
    made.train()
    made.evaluate(sets["b"], metric_key_prefix="test")
    assert callback.attribution.shape == (len(texts()), 2)


# -- Lightning

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


def test_training_data_without_an_order_are_refused_before_training(tokenizer, tmp_path):
    callback = TrakCallback(tmp_path / "runs", task="text_classification", **SMALL)
    made = trainer(tmp_path, tokenizer, callback, max_steps=2)
    made.train_dataset = texts().to_iterable_dataset()
    with pytest.raises(TypeError, match=r"trainer's loader of train is a DataLoader over IterableDataset"):
        made.train()
    assert not list(tmp_path.glob("runs/run-0/*.pt"))


def test_what_was_trained_is_kept_where_no_targets_were_ever_loaded(package, tmp_path):
    lightning, callback_class = package
    options = {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 5}
    with pytest.raises(ValueError, match=r"never loaded its targets.* pass targets="):
        fitted(lightning, tmp_path, callback_class(tmp_path, task="image_classification"), **options)
    assert checkpoints(tmp_path)


def test_weights_that_are_not_the_models_are_refused_before_training(tmp_path):
    flat, model = nn.Linear(2, 2), nn.Linear(2, 2)
    flat.weight.ds_id = 0
    with pytest.raises(ValueError, match=r"Linear has its weights spread over ranks by DeepSpeed"):
        TrakCallback(tmp_path)._begin(flat, None, resumed=False, write=True)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = torch.distributed.fsdp.FullyShardedDataParallel(model, device_id=torch.device("cpu"))
        with pytest.raises(ValueError, match=r"wrapped by FullyShardedDataParallel.*use .*fully_shard"):
            TrakCallback(tmp_path)._begin(wrapped, None, resumed=False, write=True)
    finally:
        torch.distributed.destroy_process_group()
