"""The callback of transformers' Trainer, and attribution of a Trainer's model."""

import shutil
import warnings

import numpy as np
import pytest
import torch
from hugging_face import SIZES, SMALL, assert_same_state, bert, by_hand, scores, texts, transformers
from torch import nn

import trak
from trak.integrations import transformers as integration
from trak.integrations.transformers import TrakCallback, checkpoints


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
    assert [path.name for path in (tmp_path / "runs/run-0").glob("*.pt")] == ["final.pt"]


def test_what_can_not_be_done_is_said_before_training(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"unknown task 'text_clasification': did you mean 'text_classification'"):
        TrakCallback(tmp_path, task="text_clasification")
    with pytest.raises(TypeError, match=r"proj_dim is for an attribution .* needs task="):
        TrakCallback(tmp_path, proj_dim=16)
    callback = TrakCallback(tmp_path / "runs", task="text_classification")
    with pytest.raises(
        ValueError, match=r"evaluates nothing .* pass targets=, or let it evaluate .*eval_strategy=.epoch"
    ):
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


def test_runs_on_different_data_in_one_folder_are_an_error_in_training_and_in_attribution(tokenizer, tmp_path):
    def run(number, data, folder="runs"):
        made = trainer(tmp_path, tokenizer, TrakCallback(tmp_path / folder, number), max_steps=1, eval_strategy="no")
        made.train_dataset = data
        return made

    first = run(0, texts())
    first.train()
    longer, other, shuffled = texts([*SIZES, 4]), texts(seed=8), texts().select([*range(1, len(texts())), 0])
    for data, how in (
        (longer, "10 examples, not 9"),
        (other, "as many examples, 9, with other values"),
        (shuffled, "or in another order"),
    ):
        with pytest.raises(
            ValueError, match=rf"this run \(run-1\) has other .* than run-0 in .*{how}.*use another folder"
        ):
            run(1, data).train()
        with pytest.raises(ValueError, match=rf"the Trainer has other training data than run-0 in .*{how}"):
            integration.attribute(run(1, data), "text_classification", tmp_path / "runs", texts([4], 5), **SMALL)
    run(0, other, "others").train()
    shutil.copytree(tmp_path / "others/run-0", tmp_path / "runs/run-1")
    with pytest.raises(ValueError, match=r"run-1 has other training data than run-0 in .*use another folder"):
        integration.attribute(first, "text_classification", tmp_path / "runs", texts([4], 5), **SMALL)


def test_reading_a_few_examples_to_tell_data_apart_changes_no_random_number_of_training(tokenizer, tmp_path):
    def trained(*callbacks):
        made = trainer(tmp_path, tokenizer, transformers.TrainerCallback(), num_train_epochs=1, eval_strategy="no")
        made.train_dataset = texts().with_transform(
            lambda rows: {**rows, "noise": [torch.rand(1)] * len(rows["label"])}
        )
        for callback in callbacks:
            made.add_callback(callback)
        made.train()
        return made.model.state_dict()

    assert_same_state(trained(TrakCallback(tmp_path / "runs")), trained())


@pytest.mark.parametrize("evaluates", ["epoch", "steps", "no"])
def test_a_run_that_ended_is_not_trained_again_if_it_is_reused(evaluates, tokenizer, tmp_path):
    targets = {"targets": texts([4, 6], 5)} if evaluates == "no" else {}
    first = TrakCallback(tmp_path / "runs", task="text_classification", reuse=True, **targets, **SMALL)
    made = trainer(tmp_path, tokenizer, first, eval_strategy=evaluates, eval_steps=2)
    made.train()
    before = (tmp_path / "runs/run-0/final.pt").read_bytes()
    again = TrakCallback(tmp_path / "runs", task="text_classification", reuse=True, **targets, **SMALL)
    rerun = trainer(
        tmp_path, tokenizer, again, seed=5, eval_strategy=evaluates, save_strategy="epoch", weight_decay=0.5
    )
    rerun.train()
    assert_same_state(rerun.model.state_dict(), made.model.state_dict())
    assert rerun.state.global_step == 1
    assert not list((tmp_path / "out").glob("checkpoint-*"))
    assert (tmp_path / "runs/run-0/final.pt").read_bytes() == before
    np.testing.assert_array_equal(again.attribution.scores, first.attribution.scores)
    rerun.train_dataset = texts(seed=8)
    with pytest.raises(ValueError, match=r"this run \(run-0\) has other training data than run-0"):
        rerun.train()
    with pytest.raises(ValueError, match=r"replace=True .* reuse=True .*leave one out"):
        TrakCallback(tmp_path / "runs", replace=True, reuse=True)


def test_a_trainer_that_never_trained_attributes_the_runs_of_a_folder_to_a_store_in_it(tokenizer, tmp_path):
    trained = trainer(tmp_path, tokenizer, TrakCallback(tmp_path / "runs"), max_steps=1)
    trained.train()
    fresh = trainer(tmp_path, tokenizer, transformers.TrainerCallback(), seed=7)
    found = integration.attribute(fresh, "text_classification", tmp_path / "runs", **SMALL)
    expected = scores(bert(), by_hand(), by_hand([4, 6], 5), tmp_path / "hand", trained.model.state_dict())
    np.testing.assert_array_equal(found.scores, expected)
    np.testing.assert_array_equal(trak.Attribution.open(tmp_path / "runs/store").scores, expected)


def test_label_smoothing_is_said_not_to_be_in_the_scores_of_a_task_without_it(tokenizer, tmp_path):
    class Own(trak.tasks.TextClassification):
        pass

    options = {"label_smoothing_factor": 0.2, "max_steps": 1}
    warning = r"label_smoothing_factor=0\.2, but task='text_classification' .*leave .* out, or pass a task of your own"
    callback = TrakCallback(tmp_path / "runs", task="text_classification", **SMALL)
    made = trainer(tmp_path, tokenizer, callback, **options)
    with pytest.warns(UserWarning, match=warning):
        made.train()
    with pytest.warns(UserWarning, match=warning):
        integration.attribute(made, "text_classification", tmp_path / "runs", **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        integration._check_loss(made.args, Own())


def test_training_data_without_an_order_are_refused_before_training(tokenizer, tmp_path):
    callback = TrakCallback(tmp_path / "runs", task="text_classification", **SMALL)
    made = trainer(tmp_path, tokenizer, callback, max_steps=2)
    made.train_dataset = texts().to_iterable_dataset()
    with pytest.raises(TypeError, match=r"trainer's loader of train is a DataLoader over IterableDataset"):
        made.train()
    assert not list(tmp_path.glob("runs/run-0/*.pt"))


def test_weights_that_are_not_the_models_are_refused_before_training(tmp_path):
    flat, model = nn.Linear(2, 2), nn.Linear(2, 2)
    flat.weight.ds_id = 0
    with pytest.raises(ValueError, match=r"Linear has its weights spread over ranks by DeepSpeed"):
        TrakCallback(tmp_path)._start(flat, None, resumed=False, write=True)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = torch.distributed.fsdp.FullyShardedDataParallel(model, device_id=torch.device("cpu"))
        with pytest.raises(ValueError, match=r"wrapped by FullyShardedDataParallel.*use .*fully_shard"):
            TrakCallback(tmp_path)._start(wrapped, None, resumed=False, write=True)
    finally:
        torch.distributed.destroy_process_group()
