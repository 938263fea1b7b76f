"""A small training problem: data, a training function, and its outputs by a plain loop."""

import random

import numpy as np
import torch
from torch import nn

N, TARGETS = 24, 7
CONFIG = {"lr": 0.1, "layers": (3, 4)}


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N + TARGETS, 3, generator=generator)
    y = (x.sum(1) + torch.randn(N + TARGETS, generator=generator) > 0).long()
    return x, y


X, Y = data()
BATCHES = [(X[N : N + 4], Y[N : N + 4]), (X[N + 4 :], Y[N + 4 :])]


def logistic(indices, seed):
    """Logistic regression by a few steps from a random start, with dropout."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Dropout(0.2), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[indices]), Y[indices]).backward()
        optimizer.step()
    return model


def outputs_of(indices, seed):
    """The slow truth of `logistic`: margins of the targets."""
    torch.set_num_threads(1)
    model = logistic(np.sort(indices), seed).eval()
    logits = torch.cat([model(x) for x, _ in BATCHES]).detach()
    other = logits.gather(1, 1 - Y[N:, None])
    return (logits.gather(1, Y[N:, None]) - other).squeeze(1).double().numpy(), (logits.argmax(1) == Y[N:]).numpy()


def seed_everything():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002


def plain_numbers():
    return random.random(), np.random.rand()  # noqa: NPY002


class Counting:
    """Counts the models trained, in this process."""

    def __init__(self, train=logistic):
        self.train, self.seen = train, []

    def __call__(self, indices, seed):
        self.seen.append((indices.tolist(), seed))
        return self.train(indices, seed)
