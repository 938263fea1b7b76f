"""Small real models and batches, one kind a function, for tests that run over all of them."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Case(NamedTuple):
    """A model, the task it was made for, and n examples in batches."""

    model: nn.Module
    task: str
    batches: list[Any]


def _split(tensors: tuple[Tensor, ...], sizes: list[int]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(t.split(sizes) for t in tensors), strict=True))


def images(n: int = 23, seed: int = 0) -> Case:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    x, y = torch.randn(n, 1, 6, 6), torch.randint(3, (n,))
    model(x)
    return Case(model, "image_classification", _split((x, y), _ragged(n)))


class Bag(nn.Module):
    """A text classifier that returns plain logits and knows no token types."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dropout, self.head = nn.Embedding(20, 6), nn.Dropout(0.5), nn.Linear(6, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = self.embedding(input_ids) * attention_mask.unsqueeze(-1)
        return self.head(self.dropout(torch.tanh(embedded.sum(1))))


def texts(n: int = 23, seed: int = 0) -> Case:
    torch.manual_seed(seed)
    length = torch.randint(2, 8, (n, 1))
    batch = {
        "input_ids": torch.randint(20, (n, 7)),
        "attention_mask": (torch.arange(7) < length).long(),
        "labels": torch.randint(2, (n,)),
    }
    pieces = zip(*(t.split(_ragged(n)) for t in batch.values()), strict=True)
    return Case(Bag(), "text_classification", [dict(zip(batch, piece, strict=True)) for piece in pieces])


class Next(nn.Module):
    """A causal language model: each token from the mean of those so far."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(13, 6), nn.Linear(6, 13)

    def forward(self, input_ids: Tensor) -> Tensor:
        seen = torch.arange(1, input_ids.shape[1] + 1).unsqueeze(-1)
        return self.head(torch.tanh(self.embedding(input_ids).cumsum(1) / seen))


def sentences(n: int = 23, seed: int = 0) -> Case:
    torch.manual_seed(seed)
    mask = (torch.arange(6) < torch.randint(2, 7, (n, 1))).long()
    return Case(Next(), "language_modeling", _split((torch.randint(13, (n, 6)), mask), _ragged(n)))


def vectors(n: int = 23, seed: int = 0) -> Case:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))
    return Case(model, "multi_label", _split((torch.randn(n, 5), torch.randint(2, (n, 4)).float()), _ragged(n)))


def numbers(n: int = 23, seed: int = 0) -> Case:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 1))
    return Case(model, "regression", _split((torch.randn(n, 5), torch.randn(n)), _ragged(n)))


def bert(n: int = 5, seed: int = 0) -> Case:
    """A transformers BERT from a small config with everything else at its defaults."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=16,
    )  # fmt: skip
    length = torch.randint(2, 8, (n, 1))
    batch = {
        "input_ids": torch.randint(40, (n, 7)),
        "token_type_ids": torch.zeros(n, 7, dtype=torch.long),
        "attention_mask": (torch.arange(7) < length).long(),
        "labels": torch.randint(2, (n,)),
    }
    return Case(BertForSequenceClassification(config), "text_classification", [batch])


class Recurrent(nn.Module):
    """What torch.vmap can't run, a branch on a tensor's value, and an LSTM with a projection, for which no rule is."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 5, batch_first=True, proj_size=4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.lstm(x)[0][:, -1]
        if hidden.abs().max() > 100:
            hidden = hidden / 2
        return self.head(hidden)


def sequences(n: int = 6, seed: int = 0) -> Case:
    torch.manual_seed(seed)
    return Case(Recurrent(), "image_classification", [(torch.randn(n, 4, 3), torch.randint(3, (n,)))])


def states(model: nn.Module, count: int) -> list[dict[str, Tensor]]:
    """Checkpoints a little apart."""
    torch.manual_seed(7)
    return [
        {k: v + 0.1 * torch.randn_like(v) if v.is_floating_point() and "running" not in k else v for k, v in s.items()}
        for s in [copy.deepcopy(model.state_dict()) for _ in range(count)]
    ]


def _ragged(n: int) -> list[int]:
    return [8] * (n // 8) + ([n % 8] if n % 8 else [])


TASK_CASES = {"images": images, "texts": texts, "numbers": numbers, "sentences": sentences, "vectors": vectors}
ENGINE_CASES = {**TASK_CASES, "bert": bert, "sequences": sequences}
