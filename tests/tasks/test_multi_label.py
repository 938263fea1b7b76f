"""Multi-label classification."""

import pytest
import torch
from task_contract import images
from token_tasks import VOCABULARY, SeveralContract, larger, padded, sequences, transformers
from torch import nn

from trak.tasks import MultiLabel


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
