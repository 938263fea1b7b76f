"""Rankings with ties: what is expected when ties are broken at random."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _groups(scores: Array, relevant: Array) -> tuple[Array, Array]:
    """Sizes of the groups of equal scores, from the highest down, and how many relevant ones each has: (groups,)."""
    order = np.argsort(-scores, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))
    return np.diff(np.append(first, len(scores))), np.add.reduceat(relevant[order].astype(np.int64), first)


def expected_hits(scores: Array, relevant: Array) -> Array:
    """Expected number of relevant ones among the i highest scores, (n + 1,) for i from 0 to n.

    Args:
        scores: (n,).
        relevant: bool (n,).
    """
    sizes, hits = _groups(scores, relevant)
    # Within a group every member is as likely to be any of its members.
    return np.append(0.0, np.repeat(hits / sizes, sizes).cumsum())


def expected_reciprocal_rank(scores: Array, relevant: Array) -> float:
    """Expected 1 / (rank, from 1, of the highest relevant one); arguments as above, at least one relevant."""
    sizes, hits = _groups(scores, relevant)
    group = int(np.argmax(hits > 0))
    above, size, good = int(sizes[:group].sum()), int(sizes[group]), int(hits[group])
    # Of the size places in random order, the first good one is at place j (from 0) with this chance.
    j = np.arange(size - good + 1)
    not_before = np.append(1.0, (1 - good / (size - j[:-1])).cumprod())
    chance = not_before * good / (size - j)
    return float((chance / (above + j + 1)).sum())
