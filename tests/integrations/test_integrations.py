"""Data sets and models as trainers have them, and the callbacks that keep checkpoints and attribute them."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import trak
import trak.baselines
from trak.inputs.datasets import as_loader
from trak.integrations.run_folder import RunFolder, checkpoints

datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
SIZES = [5, 2, 7, 3, 7, 4, 6, 3, 5]


def bert(seed=0):
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=99, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[PAD]": 0, **{f"w{i}": i for i in range(1, 99)}}
    made = Tokenizer(models.WordLevel(words, "w1"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")


def rows(sizes, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 90, (size,), generator=generator).tolist() for size in sizes]


def texts(sizes=SIZES, seed=3):
    ids = rows(sizes, seed)
    columns = {
        "text": [" ".join(f"w{i}" for i in row) for row in ids],
        "input_ids": ids,
        "attention_mask": [[1] * len(row) for row in ids],
        "length": [len(row) for row in ids],
        "label": [row[0] % 3 for row in ids],
    }
    return datasets.Dataset.from_dict(columns)


def by_hand(sizes=SIZES, seed=3, batch_size=4):
    ids, made = rows(sizes, seed), []
    for start in range(0, len(ids), batch_size):
        part = ids[start : start + batch_size]
        width = max(map(len, part))
        made.append(
            {
                "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in part]),
                "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part]),
                "labels": torch.tensor([row[0] % 3 for row in part]),
            }
        )
    return made


def scores(model, train, targets, path, checkpoints=None, task="text_classification", **options):
    options = {"proj_dim": 16, "progress": False, **options}
    weights = model.state_dict() if checkpoints is None else checkpoints
    return np.array(trak.attribute(model, task, weights, train, targets, path, **options).scores)


def assert_same_state(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


# -- data sets


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


def numbers(columns=("x", "label", "text")):
    x = torch.rand(7, 4, generator=torch.Generator().manual_seed(0))
    every = {"x": x.tolist(), "label": [0, 1, 2, 0, 1, 2, 0], "text": list("abcdefg"), "nothing": [None] * 7}
    return datasets.Dataset.from_dict({name: every[name] for name in columns})


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x)


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


def test_a_dataset_works_with_ranks_which_load_only_their_batches(tokenizer):
    from trak.inputs.loaders import known_batches

    known = known_batches(as_loader(texts(), bert(), batch_size=4, collate_fn=tokenizer), len(SIZES))
    assert [rows.tolist() for rows in known.indices] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    (last,) = known.load(iter([2]))
    assert torch.equal(last["input_ids"], by_hand()[2]["input_ids"])


# -- models within what trainers put around them


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


# -- checkpoints


def test_a_process_killed_while_it_saves_leaves_no_half_file(tmp_path):
    program = f"""
import os, signal, torch
from trak.integrations.run_folder import Run
run, model = Run({str(tmp_path)!r}), torch.nn.Linear(300, 300)
run.save(model, 1)
write = torch.save
def killed(state, file):
    write(state, file)
    file.truncate(1000)
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = killed
run.save(model)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("run-0/*.pt")] == ["epoch-1.pt"]
    with pytest.raises(FileNotFoundError, match=r"no run in .* has a checkpoint final\.pt"):
        checkpoints(tmp_path)
    model, run = nn.Linear(300, 300), RunFolder(tmp_path)
    run.begin(resumed=True, write=True)
    assert [path.name for path in run.directory.iterdir()] == ["epoch-1.pt"]
    run.save(model)
    assert_same_state(torch.load(checkpoints(tmp_path)[0]), model.state_dict())


def test_runs_are_in_order_and_never_overwrite_each_other(tmp_path):
    model = nn.Linear(2, 2)
    for number in (10, 2, 0):
        run = RunFolder(tmp_path, number)
        run.begin(resumed=False, write=True)
        run.save(model)
    assert [path.parent.name for path in checkpoints(tmp_path)] == ["run-0", "run-2", "run-10"]
    with pytest.raises(FileExistsError, match=r"run 2 ended before: .* exists.* run=3 .*, or another folder"):
        RunFolder(tmp_path, 2).begin(resumed=False, write=True)
    RunFolder(tmp_path, 2, replace=True).begin(resumed=False, write=True)
    assert len(checkpoints(tmp_path)) == 2
    for wrong in ({"number": -1}, {"epochs": [0]}):
        with pytest.raises(ValueError, match=r"must be [01] or more"):
            RunFolder(tmp_path, **wrong)


def test_tied_weights_are_kept_and_fit_again(tmp_path):
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    run = RunFolder(tmp_path)
    run.save(model)
    state = torch.load(run.path())
    assert_same_state(state, model.state_dict())
    other = transformers.GPT2LMHeadModel(config)
    other.load_state_dict(state)
    assert other.lm_head.weight is other.transformer.wte.weight
