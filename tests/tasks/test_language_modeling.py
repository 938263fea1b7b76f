"""Language modeling."""

import numpy as np
import pytest
import torch
from models import Next
from task_contract import sigmoid
from token_tasks import (
    LONGEST,
    OUTPUTS,
    VOCABULARY,
    SeveralContract,
    combined,
    gpt2,
    lm_output,
    losses_of,
    padded,
    sequences,
    transformers,
)
from torch import nn

from trak.inputs import batches
from trak.tasks import LanguageModeling


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
    kind, curvature_from_loss = "cross_entropy", False

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


def test_two_language_modeling_tasks_do_not_touch_each_other():
    batch, model = padded(sequences(4)), gpt2()
    expected = [lm_output(batch, model, output=o) for o in OUTPUTS]
    tasks = [LanguageModeling(o) for o in OUTPUTS]
    for _ in range(2):
        for task, f in zip(tasks, expected, strict=True):
            assert torch.equal(task.output(model, batch), f)
