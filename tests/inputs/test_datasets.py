"""Data sets become loaders with the columns and collators of transformers' Trainer."""

import numpy as np
import pytest
import torch
from hugging_face import Named, bert, by_hand, datasets, numbers, scores, texts, transformers
from torch import nn

from trak.inputs.datasets import as_loader


@pytest.mark.parametrize("kind", [None, "torch", "numpy"])
def test_scores_of_a_dataset_equal_those_of_batches_made_by_hand(kind, tokenizer, tmp_path):
    model = bert()
    expected = scores(model, by_hand(), by_hand([4, 6], 5), tmp_path / "hand")
    train, targets = texts().with_format(kind), texts([4, 6], 5).with_format(kind)
    found = scores(model, train, targets, tmp_path / "data", batch_size=4, collate_fn=tokenizer)
    np.testing.assert_array_equal(found, expected)


def test_columns_are_those_that_trainer_keeps(tokenizer, tmp_path):
    model, data = bert(), texts()
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, per_device_eval_batch_size=4, report_to=[])
    trainer = transformers.Trainer(model, arguments, eval_dataset=data, processing_class=tokenizer)
    found = list(as_loader(data, model, batch_size=4, collate_fn=tokenizer))
    for ours, theirs in zip(found, trainer.get_eval_dataloader(), strict=True):
        assert set(ours) == set(theirs) == {"input_ids", "attention_mask", "labels"}
        for name, value in theirs.items():
            assert torch.equal(ours[name], value)


def test_a_column_of_indices_is_kept_and_rows_may_then_come_in_any_order(tokenizer, tmp_path):
    model, data = bert(), texts()
    expected = scores(model, data, data, tmp_path / "plain", batch_size=4, collate_fn=tokenizer)
    order = np.random.default_rng(0).permutation(len(data))
    shuffled = data.add_column("row", np.arange(len(data))).select(order)
    found = scores(model, shuffled, shuffled, tmp_path / "b", batch_size=4, collate_fn=tokenizer, index_key="row")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_transform_sees_all_columns_and_its_result_is_filtered(tokenizer, tmp_path):
    model = bert()

    def tokenized(batch):
        return {**tokenizer(batch["text"]), "label": batch["label"], "length": batch["length"]}

    data = texts().remove_columns(["input_ids", "attention_mask"]).with_transform(tokenized)
    found = scores(model, data, data, tmp_path / "a", batch_size=4, collate_fn=tokenizer)
    np.testing.assert_array_equal(found, scores(model, by_hand(), by_hand(), tmp_path / "b"))


def test_a_model_that_names_no_column_gets_all_of_them(tmp_path):
    data = datasets.Dataset.from_dict(
        {"image": torch.rand(6, 4).tolist(), "label": [0, 1, 2] * 2, "id": list("abcdef")}
    )
    (batch,) = as_loader(data, nn.Linear(4, 3))
    assert set(batch) == {"image", "labels"}
    scores(nn.Linear(4, 3), data, data, tmp_path, task="image_classification")


@pytest.mark.parametrize("kind", [None, "torch", "numpy", "arrow", "pandas", "polars"])
def test_rows_in_every_format_are_collated_alike_without_a_collator(kind):
    if kind in ("pandas", "polars"):
        pytest.importorskip(kind)
    data = numbers(["x", "label", "text", "nothing"])
    found = list(as_loader(data.with_format(kind), Named(), batch_size=3))
    assert [set(batch) for batch in found] == [{"x", "labels"}] * 3
    assert torch.equal(torch.cat([batch["x"] for batch in found]), torch.tensor(data["x"][:]))
    assert torch.equal(torch.cat([batch["labels"] for batch in found]), torch.tensor(data["label"][:]))


def test_parts_of_a_dataset_are_collated_as_the_dataset():
    data, utils = numbers(), torch.utils.data
    split = utils.Subset(data, [6, 0, 2]), utils.ConcatDataset([data.select([6]), utils.Subset(data, [0, 2])])
    (expected,) = as_loader(data.select([6, 0, 2]), Named())
    for part in split:
        (found,) = as_loader(part, Named())
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_columns_are_those_of_the_model_within_wrappers():
    data = numbers().add_column("other", range(7))
    for model in (torch.compile(Named()), nn.DataParallel(Named())):
        assert set(next(iter(as_loader(data, model)))) == {"x", "labels"}


def test_a_label_that_some_rows_lack_is_an_error_and_not_left_out():
    data = numbers().remove_columns("label").add_column("label", [None, 1, 2, 0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"1 of 7 rows of train .* None in column 'label'; fill it in"):
        list(as_loader(data, Named(), "train"))


def test_rows_of_no_tensors_name_their_columns_and_the_cure():
    data = datasets.Dataset.from_dict({"x": [[[1.0], [2.0]], [[1.0, 2.0], [3.0]]], "label": [0, 1]})
    with pytest.raises(ValueError, match=r"train can't be made into a batch .* 'x' \(list\), 'label' .* collate_fn"):
        list(as_loader(data, Named(), "train"))


def test_what_can_not_be_collated_names_the_column_and_the_cure():
    with pytest.raises(ValueError, match=r"train have 2 to 7 entries in column 'input_ids'; pass collate_fn=tokenizer"):
        list(as_loader(texts(), bert(), "train"))
    with pytest.raises(TypeError, match=r"train is a DatasetDict; pass one of its data sets: 'a'"):
        scores(bert(), datasets.DatasetDict(a=texts()), texts(), "nowhere", batch_size=4)


@pytest.mark.parametrize("label", ["label", "labels"])
def test_text_that_is_not_tokenized_and_labels_that_are_strings_say_the_cure(label, tokenizer):
    data = datasets.Dataset.from_dict({"sentence": ["w1 w2", "w3"], label: [0, 1]})
    named = "sentence" if label == "label" else "text"  # forward names labels alone, so that other columns are dropped
    for collate in (None, tokenizer, transformers.DataCollatorForTokenClassification(tokenizer)):
        with pytest.raises(TypeError, match=rf"train is not tokenized: .*map\(lambda row: tokenizer\(row\['{named}'\]"):
            list(as_loader(data, bert(), "train", collate_fn=collate))
    ready = data.map(lambda row: tokenizer(row["sentence"]))
    assert next(iter(as_loader(ready, bert(), "train", collate_fn=tokenizer)))["input_ids"].shape == (2, 2)
    spoken = ready.remove_columns(label).add_column(label, ["good", "bad"])
    with pytest.raises(
        TypeError, match=rf"column '{label}' of train has strings, such as 'good'; .*class_encode_column"
    ):
        list(as_loader(spoken, bert(), "train", collate_fn=tokenizer))
    own = as_loader(data, bert(), "train", collate_fn=lambda rows: len(rows))
    assert list(own) == [2]
