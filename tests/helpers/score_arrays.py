"""Arrays of scores, and their rankings written out."""

import itertools

import numpy as np


def random_scores(n=40, m=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n, m)).astype(np.float32)


def orders_of(scores):
    """Every order from the highest score down, all as likely under random breaking of ties."""
    groups = [np.flatnonzero(scores == value) for value in np.unique(scores)[::-1]]
    for pieces in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield np.concatenate([np.array(piece, int) for piece in pieces])
