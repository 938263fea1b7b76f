"""Scores, and the best of them, computed by several processes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from trak.scoring.scorer import Scorer
from trak.store import Experiment

Array = np.ndarray[Any, Any]


class TopKQuery(NamedTuple):
    """What `Scorer.top` is asked for."""

    k: int
    bottom: bool


def computed(
    experiment: Experiment,
    settings: Mapping[str, Any],
    scorer: Callable[[], Scorer],
    best: TopKQuery | None,
    progress: Callable[[int], None] = lambda scores: None,
    help_with: Callable[[int], object] | None = None,
    only: Iterable[int] | None = None,
) -> Array:
    """All scores of an experiment, or with `best` what `merge_top_k` takes, kept in the store.

    Args:
        experiment: the targets.
        settings: what decides the scores.
        scorer: makes what computes them, or raises if they can't be.
        best: what of them, None for all.
        progress: told of the number of scores that are computed here.
        help_with, only: see `Experiment.computed`.
    """
    if best is None:
        return experiment.scores(settings, lambda: scorer().pieces(progress), help_with, only)
    settings = {**settings, **best._asdict()}
    shape = scorer().top_shape(best.k)
    return experiment.computed("tops", settings, shape, "float64", lambda: scorer().top_pieces(*best), help_with, only)
