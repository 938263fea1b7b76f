"""The contract of every task, and small models and batches of classification."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from trak.inputs.batches import take
from trak.tasks import (
    Task,
)

CLASSES = 3


def images(count, seed=0):
    return torch.randn(count, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(count):
    return torch.arange(count) % CLASSES


def image_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, CLASSES)).double().eval()


def tokens(count):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 20, (count, 6), generator=generator)
    mask = (torch.arange(6) < torch.randint(2, 7, (count, 1), generator=generator)).long()
    return ids * mask, mask


class MeanOfEmbeddings(nn.Module):
    """A text model that returns plain logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(20, 5), nn.Linear(5, CLASSES)

    def forward(self, input_ids, attention_mask):
        weight = attention_mask.unsqueeze(-1)
        return self.head((self.embedding(input_ids) * weight).sum(1) / weight.sum(1))


def bert(labels_from=CLASSES):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        num_labels=labels_from,
    )
    # Larger than BERT's own initial weights, so that classes differ.
    model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.double().eval()


def distilbert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=8, num_labels=CLASSES
    )
    return transformers.DistilBertForSequenceClassification(config).double().eval()


def log_odds(logits, labels):
    """log p - log(1 - p) by a softmax in float64."""
    logits = logits.detach().double().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p = (p / p.sum(1, keepdims=True))[np.arange(len(labels)), labels.numpy()]
    return np.log(p) - np.log1p(-p)


def sigmoid(f):
    return 1 / (1 + np.exp(-f))


class TaskContract:
    """What every task must do; a member says only how it is made and its formulas in NumPy."""

    def task(self) -> Task:
        raise NotImplementedError

    def model(self) -> nn.Module:
        return image_model()

    def batch(self, count):
        return images(count), labels(count)

    def expected_output(self, model, batch):
        return log_odds(model(batch[0]), batch[1])

    def expected_loss(self, f):
        return np.logaddexp(0, -f)

    def expected_weights(self, f):
        return sigmoid(-f), sigmoid(f) * sigmoid(-f)

    def test_output_equals_the_formula_in_float64(self):
        model, batch = self.model(), self.batch(7)
        output = self.task().output(model, batch)
        assert output.shape == (7,)
        np.testing.assert_allclose(output.detach().numpy(), self.expected_output(model, batch), rtol=1e-9, atol=1e-10)

    def test_output_of_an_example_does_not_depend_on_its_batch(self):
        model, batch, task = self.model(), self.batch(5), self.task()
        singles = torch.cat([task.output(model, take(batch, i, i + 1)) for i in range(5)])
        torch.testing.assert_close(singles, task.output(model, batch), rtol=1e-12, atol=1e-12)

    def test_gradient_of_the_output_equals_finite_differences_of_the_formula(self):
        model, batch, step = self.model(), self.batch(3), 1e-5
        self.task().output(model, batch).sum().backward()
        generator = torch.Generator().manual_seed(2)
        directions = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in model.parameters()]
        slope = sum((d * p.grad).sum() for d, p in zip(directions, model.parameters(), strict=True)).item()
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                for p, d in zip(model.parameters(), directions, strict=True):
                    p += sign * step * d
                values.append(self.expected_output(model, batch).sum())
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)

    def test_q_and_r_equal_their_closed_forms(self):
        model, batch, task = self.model(), self.batch(7), self.task()
        f = task.output(model, batch)
        q, r = task.weights(model, batch, f)
        expected_q, expected_r = self.expected_weights(f.detach().numpy())
        np.testing.assert_allclose(q.numpy(), expected_q, rtol=1e-10)
        np.testing.assert_allclose(r.numpy(), expected_r, rtol=1e-10)

    def test_q_equals_minus_the_finite_difference_of_the_loss(self):
        model, batch, task = self.model(), self.batch(7), self.task()
        f = task.output(model, batch)
        q, _ = task.weights(model, batch, f)
        f, step = f.detach().numpy(), 1e-5
        difference = (self.expected_loss(f + step) - self.expected_loss(f - step)) / (2 * step)
        np.testing.assert_allclose(q.numpy(), -difference, rtol=1e-6, atol=1e-9)

    def test_q_and_r_carry_no_graph_and_work_without_gradients(self):
        model, batch, task = self.model(), self.batch(2), self.task()
        with torch.no_grad():
            q, r = task.weights(model, batch, task.output(model, batch))
        expected_q, expected_r = task.weights(model, batch, task.output(model, batch))
        assert torch.equal(q, expected_q)
        assert torch.equal(r, expected_r)
        assert not expected_q.requires_grad
        assert not expected_r.requires_grad

    def test_a_right_batch_passes_the_check_and_leaves_no_gradients(self):
        model = self.model()
        assert self.task().check(model, self.batch(4)) is None
        assert all(p.grad is None for p in model.parameters())

    def test_description_survives_json(self):
        described = self.task().describe()
        assert json.loads(json.dumps(described)) == described
        assert described == self.task().describe()


class CurvatureFromLoss(TaskContract):
    def test_r_equals_the_finite_difference_of_q(self):
        model, batch, task = self.model(), self.batch(7), self.task()
        f, step = task.output(model, batch).detach(), 1e-5
        _, r = task.weights(model, batch, f)
        (above, _), (below, _) = task.weights(model, batch, f + step), task.weights(model, batch, f - step)
        np.testing.assert_allclose(r.numpy(), -((above - below) / (2 * step)).numpy(), rtol=1e-5, atol=1e-9)

    def test_loss_is_the_formula_elementwise(self):
        f = torch.linspace(-5, 5, 11, dtype=torch.float64)
        np.testing.assert_allclose(self.task().loss(f).numpy(), self.expected_loss(f.numpy()), rtol=1e-12)


def series(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, 2, dtype=torch.float64, generator=generator), torch.arange(count) % 5 + 2


class OfSeries(nn.Module):
    """A recurrent classifier of series padded to one length."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.head = nn.GRU(2, 3, batch_first=True, bidirectional=True), nn.Linear(6, CLASSES)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(torch.cat(tuple(self.gru(packed)[1]), 1))


class PublishedContract(TaskContract):
    """Tasks of the published package, whose curvature is unknown: R = 1."""

    def expected_weights(self, f):
        return sigmoid(-f), np.ones_like(f)


class IdentityByKeyword(nn.Module):
    def forward(self, input_ids):
        return input_ids


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, input_ids):
        return self.value
