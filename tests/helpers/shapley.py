"""Shapley values by their definition."""

import itertools
import math

import numpy as np


def shapley_by_enumeration(value, n):
    """The definition: the weighted sum over all subsets without i of what i adds."""
    subsets = [frozenset(s) for size in range(n + 1) for s in itertools.combinations(range(n), size)]
    values = {s: np.asarray(value(sorted(s)), float) for s in subsets}
    found = []
    for i in range(n):
        weight = {len(s): 1 / (n * math.comb(n - 1, len(s))) for s in subsets if len(s) < n}
        found.append(sum(weight[len(s)] * (values[s | {i}] - values[s]) for s in subsets if i not in s))
    return np.array(found)
