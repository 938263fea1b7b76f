"""A small BERT, texts of several lengths as a data set and as batches made by hand, and scores of them."""

import numpy as np
import pytest
import torch
from torch import nn

import trak
import trak.baselines

datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")
SMALL = {"proj_dim": 16, "progress": False}
SIZES = [5, 2, 7, 3, 7, 4, 6, 3, 5]


def bert(seed=0):
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=99, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


def make_tokenizer():
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
