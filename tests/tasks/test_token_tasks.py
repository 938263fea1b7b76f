"""Tasks whose examples are several predictions: tokens of a sequence, labels of a vector."""

import itertools

import numpy as np
import pytest
import torch
from models import Next, sentences
from test_tasks import CLASSES, Returns, images, sigmoid
from torch import nn

import trak
from trak.gradients import FunctionalEngine, HooksEngine, differentiable
from trak.gradients.base import collect
from trak.inputs import batches
from trak.tasks import LanguageModeling, MultiLabel, Seq2Seq, TextClassification, TokenClassification, make_task
from trak.testing import TaskContract
from trak.testing.reference import gradients

transformers = pytest.importorskip("transformers")

VOCABULARY, LONGEST = 20, 6
OUTPUTS = ("margin", "mean_margin", "cross_entropy")


def lengths(count):
    return [2 + (5 * i + 3) % (LONGEST - 1) for i in range(count)]


def sequences(count, seed=1):
    """Token ids, one list an example."""
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, size).tolist() for size in lengths(count)]


def padded(rows, length=LONGEST, side="right", value=0):
    """The rows as one tensor, and where they are."""
    out = torch.full((len(rows), length), value)
    mask = torch.zeros_like(out)
    for i, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        out[i, at], mask[i, at] = torch.tensor(row), 1
    return out, mask


def combined(losses, output, reduction):
    """f of one example, from the losses -log p of its predictions, by its definition in float64."""
    p = np.exp(-np.asarray(losses))
    count = 1 if reduction == "mean" else len(p)
    if output == "cross_entropy":
        return -count * np.mean(losses)
    if output == "mean_margin":
        return count * np.mean(np.log(p) - np.log1p(-p))
    together = np.exp(np.mean(np.log(p)))
    return count * (np.log(together) - np.log1p(-together))


def losses_of(logits, labels):
    """-log p of each label by a softmax in float64."""
    return nn.functional.cross_entropy(logits.double(), torch.as_tensor(labels), reduction="none").detach().numpy()


class SeveralContract(TaskContract):
    """The mean of margins that keeps the loss; subclasses say `losses`, a list of arrays, one an example."""

    kind, reduction = "margin", "mean"
    make = None

    def task(self):
        return self.make(self.kind, self.reduction)

    def losses(self, model, batch):
        raise NotImplementedError

    def counts(self, count):
        return np.array([len(row) for row in self.losses(self.model(), self.batch(count))])

    def expected_output(self, model, batch):
        return np.array([combined(row, self.kind, self.reduction) for row in self.losses(model, batch)])

    def test_the_loss_of_the_output_is_the_mean_cross_entropy(self):
        model, batch = self.model(), self.batch(7)
        task = self.make()
        loss = task.loss(task.output(model, batch)).detach().numpy()
        np.testing.assert_allclose(loss, [row.mean() for row in self.losses(model, batch)], rtol=1e-9)

    def test_q_times_the_gradient_of_the_output_is_minus_that_of_the_mean_cross_entropy(self):
        model, batch, task = self.model(), self.batch(3), self.make()
        q, _ = task.weights(model, batch, task.output(model, batch))
        found, plain = gradients(model, task, batch), gradients(model, self.make("cross_entropy"), batch)
        for name, expected in plain.items():
            weighted = q.reshape(-1, *[1] * (expected.ndim - 1)) * found[name]
            torch.testing.assert_close(weighted, expected, rtol=1e-8, atol=1e-10)


def gpt2(**more):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1, **more
    )
    return larger(transformers.GPT2LMHeadModel(config))


def t5(decoder_start_token_id=0):
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        decoder_start_token_id=decoder_start_token_id,
    )  # fmt: skip
    return larger(transformers.T5ForConditionalGeneration(config))


def bart():
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=VOCABULARY, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16,
    )  # fmt: skip
    return larger(transformers.BartForConditionalGeneration(config))


def tagger():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16, num_labels=CLASSES,
    )  # fmt: skip
    return larger(transformers.BertForTokenClassification(config))


def larger(model):
    """Weights larger than at the start, so that predictions differ."""
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.5)
    return model.double().eval()


class TestLanguageModeling(SeveralContract):
    make = LanguageModeling

    def model(self):
        return gpt2()

    def batch(self, count):
        return padded(sequences(count))

    def losses(self, model, batch):
        rows = sequences(batches.size(batch))
        return [losses_of(model(torch.tensor([row])).logits[0, :-1], row[1:]) for row in rows]


class TestLanguageModelingInFrontPadded(TestLanguageModeling):
    def batch(self, count):
        ids, mask = padded(sequences(count), LONGEST + 2, "left")
        return transformers.BatchEncoding({"input_ids": ids, "attention_mask": mask})


class TestLanguageModelingOfAnswers(TestLanguageModeling):
    """Only the last token, and every second before it, has a label."""

    def batch(self, count):
        ids, mask = padded(sequences(count))
        labels = [[t if (len(row) - i) % 2 else -100 for i, t in enumerate(row)] for row in sequences(count)]
        return {"input_ids": ids, "attention_mask": mask, "label": padded(labels, value=-100)[0]}

    def losses(self, model, batch):
        return [row[::-2][::-1] for row in super().losses(model, batch)]


class TestSumOfTokens(TestLanguageModeling):
    reduction = "sum"

    def expected_loss(self, f):
        count = self.counts(len(f))
        return count * np.logaddexp(0, -f / count)

    def expected_weights(self, f):
        count = self.counts(len(f))
        f = f / count
        return sigmoid(-f), sigmoid(f) * sigmoid(-f) / count

    def test_loss_is_the_formula_elementwise(self):
        with pytest.raises(ValueError, match="depends on how many they are; use reduction='mean'"):
            self.task().loss(torch.zeros(2))


class TestMeanMarginOfTokens(TestLanguageModeling):
    kind = "mean_margin"


class CrossEntropy(TestLanguageModeling):
    kind = "cross_entropy"

    def expected_loss(self, f):
        return -f

    def expected_weights(self, f):
        return np.ones_like(f), np.ones_like(f)

    def test_r_equals_the_finite_difference_of_q(self):
        """R stands for the empirical Fisher matrix."""


class TestCrossEntropyOfTokens(CrossEntropy):
    reduction = "mean"


class TestSumOfCrossEntropies(CrossEntropy):
    reduction = "sum"


class TestSeq2Seq(SeveralContract):
    make = Seq2Seq

    def model(self):
        return bart()  # a T5 computes in float32 here and there

    def answers(self, count):
        return sequences(count, seed=2)

    def batch(self, count):
        ids, mask = padded(sequences(count))
        return ids, mask, padded(self.answers(count), value=-100)[0]

    def losses(self, model, batch):
        pairs = zip(sequences(batches.size(batch)), self.answers(batches.size(batch)), strict=True)
        found = []
        for question, answer in pairs:
            logits = model(input_ids=torch.tensor([question]), decoder_input_ids=torch.tensor([[2, *answer[:-1]]]))
            found.append(losses_of(logits.logits[0], answer))
        return found


class TestTokenClassification(SeveralContract):
    make = TokenClassification

    def model(self):
        return tagger()

    def batch(self, count):
        ids, mask = padded(sequences(count))
        labels = [[t % CLASSES for t in row] for row in sequences(count)]
        return ids, torch.zeros_like(ids), mask, padded(labels, value=-100)[0]

    def losses(self, model, batch):
        rows = sequences(batches.size(batch))
        return [losses_of(model(torch.tensor([row])).logits[0], [t % CLASSES for t in row]) for row in rows]


class TestMultiLabel(SeveralContract):
    make = MultiLabel

    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(32, 5)).double()

    def batch(self, count):
        labels = (torch.arange(count * 5) % 3 == 0).double().reshape(count, 5)
        labels[0, 2] = -100
        return images(count), labels

    def losses(self, model, batch):
        logits, labels = model(batch[0]), batch[1]
        losses = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").detach().numpy()
        return [loss[known] for loss, known in zip(losses, (labels != -100).numpy(), strict=True)]


class TestMultiLabelText(TestMultiLabel):
    def model(self):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=16, num_labels=5, problem_type="multi_label_classification",
        )  # fmt: skip
        return larger(transformers.BertForSequenceClassification(config))

    def batch(self, count):
        ids, mask = padded(sequences(count))
        return {"input_ids": ids, "attention_mask": mask, "labels": super().batch(count)[1]}

    def losses(self, model, batch):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return super().losses(nn.Identity(), (logits, batch["labels"]))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("task", [TokenClassification, MultiLabel])
def test_one_prediction_alone_is_classified_as_such_however_sure(task, output):
    m = torch.linspace(-200, 200, 401)
    logits = torch.stack((torch.zeros_like(m), m), -1)[:, None] if task is TokenClassification else m[:, None]
    batch = (logits.requires_grad_(), torch.ones(len(m), 1, dtype=torch.long))
    model = Keyed() if task is TokenClassification else nn.Identity()
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
    f = TokenClassification().output(Keyed(), (logits, torch.ones(1, 3, dtype=torch.long)))
    # The mean loss is e^-surest (1 + e^-3 + e^-1) / 3 as far as it counts.
    expected = surest - np.log((1 + np.exp(-3) + np.exp(-1)) / 3)
    assert f.item() == pytest.approx(expected, rel=1e-6, abs=3e-3 if surest < 10 else 1e-6)
    (slope,) = torch.autograd.grad(f.sum(), logits)
    assert torch.isfinite(slope).all()
    torch.testing.assert_close(slope[0, :, 1].sum(), torch.tensor(1.0), rtol=2e-3, atol=0)


class Keyed(nn.Module):
    def forward(self, input_ids):
        return input_ids


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(2, 300, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(600).reshape(2, 300) % 9
    f = TokenClassification().output(Keyed(), (logits, labels))
    assert f.dtype == torch.float32
    torch.testing.assert_close(f, TokenClassification().output(Keyed(), (logits.float(), labels)))


# Batches of language models


def lm_output(batch, model=None, **settings):
    return LanguageModeling(**settings).output(model or gpt2(), batch)


def test_the_forms_of_a_batch_for_language_modeling_agree():
    ids, mask = padded(sequences(5))
    labels = ids.masked_fill(mask == 0, -100)
    expected = lm_output((ids, mask, labels))
    for batch in (
        (ids, mask),
        {"input_ids": ids, "attention_mask": mask},
        {"input_ids": ids, "attention_mask": mask.bool(), "labels": None},
        transformers.BatchEncoding({"input_ids": ids, "attention_mask": mask, "labels": labels}),
    ):
        torch.testing.assert_close(lm_output(batch), expected)
    whole = torch.tensor([[4, 5, 6], [7, 8, 9]])
    for batch in (whole, [whole], {"input_ids": whole}):
        torch.testing.assert_close(lm_output(batch), lm_output((whole, torch.ones_like(whole))))


def test_a_language_model_of_ones_own_takes_ids_by_any_name():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Next()

        def forward(self, tokens):
            return self.inner(tokens)

    torch.manual_seed(0)
    model, (ids, mask) = Mine(), padded([[1, 2, 3], [4, 5]])
    torch.testing.assert_close(lm_output((ids, mask), model), lm_output((ids, mask), model.inner))


def test_several_documents_in_one_row_are_one_example():
    first, second = [3, 4, 5], [6, 7, 8, 9]
    batch = {
        "input_ids": torch.tensor([first + second]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3]]),
        "labels": torch.tensor([[*first, -100, *second[1:]]]),
    }
    model = gpt2()
    losses = [losses_of(model(torch.tensor([doc])).logits[0, :-1], doc[1:]) for doc in (first, second)]
    assert lm_output(batch, model).item() == pytest.approx(combined(np.concatenate(losses), "margin", "mean"))


def test_rows_without_padding_in_front_reach_the_model_unchanged():
    class Recorded(nn.Module):
        def forward(self, **inputs):
            self.seen = inputs
            return nn.functional.one_hot(inputs["input_ids"], VOCABULARY).float()

    ids, mask = padded(sequences(5))
    model, batch = Recorded(), {"input_ids": ids, "attention_mask": mask, "extra": torch.ones(5, LONGEST, 2)}
    lm_output(batch, model)
    assert set(model.seen) == set(batch)
    assert all(torch.equal(model.seen[key], value) for key, value in batch.items())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("task, make", [(LanguageModeling, gpt2), (Seq2Seq, t5), (TokenClassification, tagger)])
def test_a_sequence_all_of_whose_labels_are_masked_is_no_number_and_named(task, make, output, reduction):
    ids, mask = padded(sequences(4))
    labels = ids.masked_fill(mask == 0, -100) % CLASSES if task is TokenClassification else ids.clone()
    labels[2] = -100
    f = task(output, reduction).output(make(), (ids, mask, labels))
    assert f.isfinite().tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="row 2 of the batch has no token to predict: all of its labels are -100"):
        task(output, reduction).check(make(), (ids, mask, labels))


IDS, MASK = padded(sequences(4))


@pytest.mark.parametrize(
    "task, make, batch, message",
    [
        (LanguageModeling, gpt2, (IDS, MASK * torch.tensor([[1], [1], [0], [1]])), "row 2 of the batch is empty"),
        (TextClassification, tagger, (IDS, MASK * 0, IDS[:, 0]), "row 0 of the batch is empty: its attention_mask"),
        (LanguageModeling, gpt2, (IDS, IDS), r"attention_mask must hold 1 .* got \d+ in row 0 .* pass a dict"),
        (LanguageModeling, gpt2, (IDS, MASK[:, 1:]), r"attention_mask has shape \(4, 5\), but input_ids \(4, 6\)"),
        (LanguageModeling, gpt2, (IDS + 15, MASK), r"token id out of range: \d+ in row 0 .* has 20 \(0 to 19\)"),
        (LanguageModeling, gpt2, (IDS, MASK, IDS + 15), r"label out of range: \d+ in row \d .* 20 classes"),
        (LanguageModeling, gpt2, (IDS, MASK, -MASK), "label out of range: -1 in row 0"),
        (LanguageModeling, gpt2, (IDS, MASK, IDS[:, 0]), r"labels as a tensor .* got shape \(4,\)"),
        (LanguageModeling, gpt2, (IDS, MASK, IDS[:, 1:]), r"labels of shape \(4, 5\), got \(4, 6, 20\)"),
        (LanguageModeling, gpt2, (IDS, MASK, IDS.double()), "integer class indices, got torch.float64"),
        (LanguageModeling, gpt2, {"input_ids": IDS, "labels": [1, 2]}, "labels as a tensor .* got list"),
        (LanguageModeling, gpt2, {"ids": IDS}, "neither input_ids nor labels, got ids"),
        (LanguageModeling, gpt2, (IDS,) * 4, r"language modeling is a dict, or a tuple \(input_ids,\) or"),
        (LanguageModeling, gpt2, IDS[:, :1], "no token to predict: .* -100 beyond the first position"),
        (Seq2Seq, t5, (IDS,), r"seq2seq is a dict, or a tuple \(input_ids, labels\)"),
        (Seq2Seq, t5, {"input_ids": IDS}, "no labels.* got input_ids"),
        (Seq2Seq, Next, (IDS, IDS), "Next can't make decoder_input_ids of labels .*; put them into"),
        (Seq2Seq, lambda: t5(decoder_start_token_id=None), (IDS, IDS), "T5.* can't make .*decoder_start_token_id"),
        (Seq2Seq, t5, (IDS, MASK, IDS + 15), "label out of range"),
        (TokenClassification, tagger, (IDS, MASK, IDS), "label out of range: .* 3 classes"),
        (TokenClassification, tagger, (IDS, MASK, IDS[:, 0]), r"token classification needs labels .* got shape \(4,\)"),
    ],
)  # fmt: skip
def test_check_names_what_is_wrong_with_a_batch_of_tokens(task, make, batch, message):
    with pytest.raises(ValueError, match=message):
        task().check(make(), batch)


@pytest.mark.parametrize("value", [None, {"scores": torch.zeros(2, 3)}, ()])
def test_models_without_logits_are_refused_with_the_type_they_returned(value):
    for task in (LanguageModeling(), TokenClassification(), MultiLabel()):
        with pytest.raises(TypeError, match=f"returned {type(value).__name__} without logits"):
            task.check(Returns(value), {"input_ids": torch.zeros(2, 3, dtype=torch.long), "labels": torch.ones(2, 3)})


def test_one_prediction_for_a_whole_sequence_is_refused_with_its_shape():
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"logits of shape \(B, length, classes\) .*\(2, 3\), got \(2, 20\)"):
        LanguageModeling().check(Returns(torch.zeros(2, 20)), ids)


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (torch.zeros(2, 3), torch.ones(2, 2), r"logits' shape \(2, 3\).* got \(2, 2\)"),
        (torch.zeros(2, 3), torch.ones(2), r'got \(2,\); use task="text_classification" .* for one class'),
        (torch.zeros(2, 3), [[1, 0, 0]] * 2, "zeros and ones, got list"),
        (torch.zeros(2, 3), torch.tensor([[0, 1, 1], [0, 1, 2]]), "0 or 1, .* got 2 in row 1"),
        (torch.zeros(2, 3), torch.full((2, 3), 0.25), "0 or 1, .* got 0.25 in row 0"),
        (torch.zeros(2, 3), torch.tensor([[0, 1, 1], [-100] * 3]), "row 1 of the batch has no known label"),
    ],
)
def test_check_names_what_is_wrong_with_a_vector_of_labels(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        MultiLabel().check(nn.Identity(), (logits, labels))


def test_labels_other_than_yes_and_no_give_no_number():
    f = MultiLabel().output(nn.Identity(), (torch.zeros(3, 2), torch.tensor([[0, 1], [0, 0.5], [-1, 1]])))
    assert f.isnan().tolist() == [False, True, True]


def test_one_logit_of_yes_or_no_is_a_vector_of_one_label():
    logits, y = torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([1, 1, 0])
    for batch in ((logits, y), (logits[:, None], y), (logits[:, None], y[:, None])):
        MultiLabel().check(nn.Identity(), batch)
        torch.testing.assert_close(MultiLabel().output(nn.Identity(), batch), torch.tensor([-1.0, 2.0, -0.5]))


def test_correct_says_whether_every_prediction_is_right():
    logits = torch.tensor([[[0.0, 1], [2, 0]], [[0, 1], [0, 2]], [[3, 1], [2, 0]]])
    labels = torch.tensor([[1, 0], [1, 0], [-100, 0]])
    batch = (logits, labels)
    assert TokenClassification().correct(Keyed(), batch, None).tolist() == [True, False, True]
    yes = (logits[..., 1] - logits[..., 0], labels)
    assert MultiLabel().correct(nn.Identity(), yes, None).tolist() == [True, False, True]


# Settings


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


def test_two_language_modeling_tasks_do_not_touch_each_other():
    batch, model = padded(sequences(4)), gpt2()
    expected = [lm_output(batch, model, output=o) for o in OUTPUTS]
    tasks = [LanguageModeling(o) for o in OUTPUTS]
    for _ in range(2):
        for task, f in zip(tasks, expected, strict=True):
            assert torch.equal(task.output(model, batch), f)


def test_a_loss_of_ones_own_gives_its_weights():
    class Squared(LanguageModeling):
        def loss(self, output):
            return (output - 1).square() / 2

    q, r = Squared().weights(nn.Identity(), None, torch.tensor([0.0, 3.0]))
    assert (q.tolist(), r.tolist()) == ([1, -2], [1, 1])


# Targets of single tokens


@pytest.mark.parametrize("output", OUTPUTS)
def test_each_token_of_a_target_becomes_a_target_of_its_own(output):
    model, (ids, mask) = gpt2(), padded(sequences(3), side="left")
    task = LanguageModeling(output)
    targets = task.token_targets({"input_ids": ids, "attention_mask": mask})
    assert ((targets["labels"] != -100).sum(1) == 1).all()
    expected = []
    for row in sequences(3):
        for loss in losses_of(model(torch.tensor([row])).logits[0, :-1], row[1:]):
            expected.append(combined([loss], output, "mean"))
    np.testing.assert_allclose(task.output(model, targets).detach().numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("with_model", [True, False])
def test_tokens_of_an_answer_keep_the_tokens_before_them(with_model):
    model, task = t5(), Seq2Seq("cross_entropy", "sum")
    (ids, mask), labels = padded(sequences(3)), padded(sequences(3, seed=2), value=-100)[0]
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if with_model:
        targets = task.token_targets(batch, model)
    else:
        prepared = model.prepare_decoder_input_ids_from_labels(labels=labels)
        targets = task.token_targets({**batch, "decoder_input_ids": prepared})
    parts = task.output(model, targets).split([len(row) for row in sequences(3, seed=2)])
    torch.testing.assert_close(torch.stack([part.sum() for part in parts]), task.output(model, batch))


def test_tokens_of_an_answer_without_what_comes_before_them_are_refused():
    with pytest.raises(ValueError, match="needs decoder_input_ids, and the batch has only"):
        Seq2Seq().token_targets((IDS, IDS))


def test_scores_of_tokens_add_up_to_the_scores_of_their_sequence(tmp_path):
    model, _, data = sentences(n=12)
    task = LanguageModeling("cross_entropy", "sum")
    settings = {"checkpoints": model.state_dict(), "train": data, "proj_dim": 16, "progress": False}
    whole = trak.attribute(model, task, targets=[data[0]], save_dir=tmp_path / "a", **settings).scores
    tokens = task.token_targets(data[0])
    parts = trak.attribute(model, task, targets=[tokens], save_dir=tmp_path / "b", **settings).scores
    rows = (data[0][1].sum(1) - 1).tolist()
    for j, part in enumerate(np.split(parts, np.cumsum(rows)[:-1], axis=1)):
        np.testing.assert_allclose(part.sum(1), whole[:, j], rtol=1e-4, atol=1e-5 * np.abs(whole).max())


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


# Engines and memory


@pytest.mark.parametrize("engine", [HooksEngine, FunctionalEngine])
@pytest.mark.parametrize("output", OUTPUTS)
def test_engines_equal_the_loop(engine, output):
    model, _, data = sentences(n=5)
    task, names = LanguageModeling(output), [name for name, _ in model.named_parameters()]
    with differentiable(model, names):
        found = collect(engine(model, task, names), data[0])
    for name, expected in gradients(model, task, data[0]).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_task_keeps_one_copy_of_the_logits_at_labels_and_nothing_of_the_others(output):
    vocabulary, length = 3000, 40
    model, ids = nn.Embedding(vocabulary, vocabulary), torch.arange(length)[None]
    copy = 4 * length * vocabulary
    model.forward = lambda input_ids: nn.functional.embedding(input_ids, model.weight)
    for labelled in (length - 1, 4):
        labels = ids.clone()
        labels[:, : length - labelled] = -100
        batch = {"input_ids": ids, "labels": labels}
        kept = HooksEngine(model, LanguageModeling(output), ["weight"]).activation_bytes(batch)
        assert kept < 1.1 * copy * labelled / length


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


def test_batches_of_tokens_can_be_divided():
    targets = LanguageModeling().token_targets(padded(sequences(3)))
    assert batches.size(batches.take(targets, 1, 3)) == 2
