"""Random scores: chance."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import nn

from trak.attribution.results import ArrayAttribution, Attribution
from trak.baselines.base import Baseline
from trak.inputs.batches import Batch
from trak.inputs.checkpoints import Checkpoint
from trak.inputs.loaders import count_examples
from trak.tasks import Task


class Random(Baseline):
    """Independent normal numbers: what any other method should beat."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        """
        Args:
            seed: an integer, 0 or more.

        Raises:
            ValueError, TypeError: for anything else.
        """
        np.random.SeedSequence(seed)
        self.seed = seed

    def attribute(
        self,
        model: nn.Module | None,
        task: Task | str | Any,
        checkpoints: Checkpoint | Sequence[Checkpoint],
        train: Iterable[Batch],
        targets: Iterable[Batch],
        *,
        progress: bool = True,
    ) -> Attribution:
        """Score the examples of `train` for `targets`; of the other arguments nothing is used."""
        shape = count_examples(train, "train"), count_examples(targets, "targets")
        scores = np.random.default_rng(self.seed).standard_normal(shape, dtype=np.float32)
        return ArrayAttribution(scores, name=self.name)
