"""Random scores: chance."""

import numpy as np

from trak._utils.typing import Array
from trak.baselines.base import Baseline, BaselineInputs, register_baseline
from trak.inputs.loaders import count_examples


@register_baseline("random")
class Random(Baseline):
    """Independent normal numbers: what any other method should beat."""

    def __init__(self, seed: int = 0) -> None:
        """
        Args:
            seed: an integer, 0 or more.

        Raises:
            ValueError, TypeError: for anything else.
        """
        np.random.SeedSequence(seed)
        self.seed = seed

    def compute_scores(self, inputs: BaselineInputs) -> Array:
        shape = count_examples(inputs.train, "train"), count_examples(inputs.targets, "targets")
        return np.random.default_rng(self.seed).standard_normal(shape, dtype=np.float32)
