"""Rankings: the highest values, and with ties what is expected when they are broken at random."""

import numpy as np

from trak._utils.typing import Array


def top_indices(values: Array, k: int | None = None, lowest: bool = False) -> Array:
    """Indices of the k highest values, or the lowest, strongest first, by default of all; of equal ones the lower index
    comes first. Values (n, m) are ranked column by column."""
    return np.argsort(values if lowest else -values, axis=0, kind="stable")[:k]


def _groups(scores: Array, relevant: Array) -> tuple[Array, Array]:
    """Sizes of the groups of equal scores, from the highest down, and how many relevant ones each has: (groups,)."""
    order = np.argsort(-scores, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))
    return np.diff(np.append(first, len(scores))), np.add.reduceat(relevant[order].astype(np.int64), first)


def expected_hits(scores: Array, relevant: Array) -> Array:
    """Expected number of relevant ones among the i highest of n scores, (n + 1,) for i from 0 to n."""
    sizes, hits = _groups(scores, relevant)
    # Within a group every member is as likely to be any of its members.
    return np.append(0.0, np.repeat(hits / sizes, sizes).cumsum())


def expected_reciprocal_rank(scores: Array, relevant: Array) -> float:
    """Expected 1 / (rank, from 1, of the highest relevant one); at least one has to be relevant."""
    sizes, hits = _groups(scores, relevant)
    group = int(np.argmax(hits > 0))
    above, size, good = int(sizes[:group].sum()), int(sizes[group]), int(hits[group])
    # Of the size places in random order, the first good one is at place j (from 0) with this chance.
    j = np.arange(size - good + 1)
    not_before = np.append(1.0, (1 - good / (size - j[:-1])).cumprod())
    chance = not_before * good / (size - j)
    return float((chance / (above + j + 1)).sum())
