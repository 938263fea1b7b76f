"""The contract of tasks with defaults, and small models and batches of classification."""

import numpy as np
import pytest
import torch
from torch import nn

from trak.testing import TaskContract

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


class ClassificationContract(TaskContract):
    """The contract with a small model and batches of images, and the margin's formulas."""

    def model(self) -> nn.Module:
        return image_model()

    def batch(self, count):
        return images(count), labels(count)

    def expected_output(self, model, batch):
        return log_odds(model(batch[0]), batch[1])


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


class PublishedContract(ClassificationContract):
    """Tasks of the published package, whose curvature is unknown: R = 1."""

    curvature_from_loss = False
    test_loss_is_the_formula_elementwise = None

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
