"""Models of transformers from small configs and otherwise at their defaults, by the library's own choice of engine."""

import functools
import math
import warnings

import pytest
import torch
from test_layers import hugging_face, transformers

from trak.gradients import choose_engine, differentiable
from trak.gradients.base import collect
from trak.gradients.featurize import featurize
from trak.inputs import batches
from trak.projectors import make_projector
from trak.tasks import make_task
from trak.testing.reference import gradients

SIZES = [5, 2, 7, 3, 7, 4, 6]
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 99,
}  # fmt: skip


def bart():
    config = transformers.BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, vocab_size=99,
    )  # fmt: skip
    return transformers.BartForConditionalGeneration(config)


def bert(kind, **more):
    return lambda: getattr(transformers, f"BertFor{kind}")(transformers.BertConfig(**SMALL, **more))


class Text:
    """Rows of tokens with a class each, padded to any length on either side."""

    pads_labels = False

    def labels(self, row):
        return row[0] % 3

    def batch(self, length=7, side="right"):
        rows = self.rows()
        made = {"input_ids": [self.pad(r, 0, length, side) for r in rows]}
        made["attention_mask"] = [self.pad([1] * len(r), 0, length, side) for r in rows]
        labels = [self.labels(r) for r in rows]
        if self.pads_labels:
            labels = [self.pad(r, -100, length, side) for r in labels]
        made["labels"] = labels
        return {key: torch.tensor(value) for key, value in made.items()}

    @staticmethod
    def rows():
        generator = torch.Generator().manual_seed(3)
        return [torch.randint(5, 90, (size,), generator=generator).tolist() for size in SIZES]

    @staticmethod
    def pad(row, value, length, side):
        padding = [value] * (length - len(row))
        return row + padding if side == "right" else padding + row


class Number(Text):
    def labels(self, row):
        return row[0] / 45 - 1


class Vector(Text):
    def labels(self, row):
        return [float(row[0] % 2), 0.0, 1.0]


class Tags(Text):
    pads_labels = True

    def labels(self, row):
        return [-100, *(token % 3 for token in row[1:])]


class Next(Text):
    pads_labels = True

    def labels(self, row):
        return row


class Choices(Text):
    def batch(self, length=7, side="right"):
        made = super().batch(length, side)
        turned = {key: torch.stack((made[key], made[key].roll(1, 0)), 1) for key in ("input_ids", "attention_mask")}
        return {**turned, "labels": made["labels"] % 2}


class Answers(Text):
    """The encoder's side is padded; answers always at their end, as labels are."""

    def batch(self, length=7, side="right"):
        made = super().batch(length, side)
        answers = [self.pad(row, -100, length, "right") for row in reversed(self.rows())]
        return {**made, "labels": torch.tensor(answers)}


class Images(Text):
    def batch(self, length=7, side="right"):
        generator = torch.Generator().manual_seed(3)
        return {"pixel_values": torch.randn(7, 3, 16, 16, generator=generator), "labels": torch.arange(7) % 3}


FAMILIES = {
    "bert": (None, "text_classification", Text()),
    "roberta": (None, "text_classification", Text()),
    "distilbert": (None, "text_classification", Text()),
    "deberta": (None, "text_classification", Text()),
    "modernbert": (None, "text_classification", Text()),
    "gpt2": (None, "language_modeling", Next()),
    "llama, tied": (None, "language_modeling", Next()),
    "t5": (None, "seq2seq", Answers()),
    "bart": (bart, "seq2seq", Answers()),
    "vit": (None, "image_classification", Images()),
    "bert for choices": (bert("MultipleChoice"), "text_classification", Choices()),
    "bert for a number": (bert("SequenceClassification", num_labels=1), "regression", Number()),
    "bert for several labels": (bert("SequenceClassification", num_labels=3), "multi_label", Vector()),
    "bert for tokens": (bert("TokenClassification", num_labels=3), "token_classification", Tags()),
    "bert for masked tokens": (bert("MaskedLM"), "token_classification", Tags()),
}
# Their predictions are the same whatever the side: all tasks that move padding, and relative positions.
EITHER_SIDE = ["gpt2", "llama, tied", "t5", "bart"]


@functools.cache
def family(name):
    make, task, data = FAMILIES[name]
    torch.manual_seed(0)
    model = make() if make else hugging_face(name)[0]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.eval(), make_task(task), data


def ready(name):
    model, task, data = family(name)
    return model, task, data, [n for n, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_by_the_automatic_engine_equal_the_loop(name):
    model, task, data, names = ready(name)
    for batch, size in ((data.batch(), 7), (data.batch(), 1), (data.batch(11), 7), (data.batch(9, "left"), 7)):
        batch = batches.take(batch, 0, size)
        task.check(model, batch)
        with warnings.catch_warnings(), differentiable(model, names):
            warnings.simplefilter("error")  # one of the slower engines
            engine = choose_engine("auto", model, task, names, batch)
            found = collect(engine, batch)
        assert engine.name == "hooks"
        truth = gradients(model, task, batch, names)
        whole = math.sqrt(sum(float(t.norm()) ** 2 for t in truth.values()))
        for parameter, expected in truth.items():
            assert float((found[parameter] - expected).norm()) <= 1e-5 * whole, (size, parameter)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "vit"])
def test_an_example_has_the_same_features_whatever_its_padding_and_batch(name):
    model, task, data, names = ready(name)
    projector = make_projector("sketch", 64, 0)
    projector.bind({n: p.shape for n, p in model.named_parameters() if n in names})

    def features(batch):
        with differentiable(model, names):
            engine = choose_engine("hooks", model, task, names, batch)
            return featurize(engine, projector, batch, 0, 2**30).features

    expected = features(data.batch())
    others = [data.batch(11)] + ([data.batch(8, "left"), data.batch(7, "left")] if name in EITHER_SIDE else [])
    for batch in others:
        for start, stop in ((0, 7), (2, 4)):
            found = features(batches.take(batch, start, stop))
            difference = (found - expected[start:stop]).norm(dim=1)
            assert (difference <= 1e-5 * expected[start:stop].norm(dim=1)).all()


@pytest.mark.parametrize("name", ["bert", "deberta", "gpt2", "t5", "bert for choices"])
def test_labels_go_by_any_usual_name_and_never_reach_the_model(name):
    model, task, data, _ = ready(name)
    batch = data.batch()
    expected = task.output(model, batch)
    handle = model.register_forward_pre_hook(lambda _, args, kwargs: _refuse_labels(kwargs), with_kwargs=True)
    try:
        for key in ("labels", "label", "label_ids", "y", "target", "targets"):
            renamed = {k: v for k, v in batch.items() if k != "labels"}
            found = task.output(model, {**renamed, key: batch["labels"]})
            assert torch.equal(found, expected)
    finally:
        handle.remove()


def _refuse_labels(kwargs):
    assert "labels" not in kwargs


@pytest.mark.parametrize("head", [bert("SequenceClassification", num_labels=1)])
def test_heads_of_a_number_are_sent_to_the_task_for_numbers(head):
    with pytest.raises(ValueError, match=r'got \(7, 1\); use task="regression"'):
        make_task("text_classification").check(head(), Number().batch())


def test_vectors_of_labels_are_sent_to_the_task_for_them():
    model = bert("SequenceClassification", num_labels=3)()
    with pytest.raises(ValueError, match=r'got \(7, 3\); use task="multi_label"'):
        make_task("text_classification").check(model, Vector().batch())


def test_language_models_keep_no_cache_of_keys_and_values():
    model, task, data, _ = ready("gpt2")
    seen = []
    handle = model.register_forward_hook(lambda _, args, result: seen.append(result.past_key_values))
    task.output(model, data.batch())
    handle.remove()
    assert seen == [None]
