"""What is trained: runs, random subsets, and the seeds of both. Pure functions of their arguments, the same on every
machine and for every version of NumPy."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from trak._utils.counter_random import random_words, stream_key
from trak._utils.typing import Array
from trak._utils.validation import as_array, as_indices, check_count, is_number
from trak.evaluation.validation import as_mask

_SUBSET_BITS = 20
_WORD = 2**32


class TrainingRun(NamedTuple):
    """One training run: (indices, seed), and what to call it in messages."""

    indices: Array
    """The training examples, distinct."""
    seed: int
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or 'the run'} ({len(self.indices)} training examples, training seed {self.seed})"

    def key(self) -> str:
        """A hash of the examples and the seed: 32 hexadecimal digits."""
        digest = hashlib.blake2b(f"{self.seed}\x1f".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.indices, "<i8").data)
        return digest.hexdigest()


def checked_run(run: tuple[Any, ...], position: int, train_set_size: int) -> TrainingRun:
    """The run meant by (indices, seed) or a `TrainingRun`, its indices int64 and sorted."""
    if not isinstance(run, tuple | list) or len(run) not in (2, 3):
        raise TypeError(f"run {position} must be (indices, seed), got {type(run).__name__}; pass a pair for each model")
    name = run[2] if len(run) == 3 and run[2] else f"run {position}"
    indices = as_array(run[0])
    if indices.ndim != 1 or not len(indices):
        raise ValueError(
            f"{name}: expected the indices of one training example or more, got shape {indices.shape}; pass a vector "
            "of one or more"
        )
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{name}: indices must be integers, got {indices.dtype}; pass np.flatnonzero(mask) for a mask")
    indices = np.sort(as_indices(indices, train_set_size, f"{name}: indices"))
    seed = check_count(run[1], f"{name}: the training seed", least=0)
    if seed >= _WORD:
        raise ValueError(f"{name}: the training seed must be less than 2**32, got {seed}; use a smaller one")
    return TrainingRun(indices, seed, name)


def random_subset(seed: int, subset: int, train_set_size: int, fraction: float) -> Array:
    """Subset number `subset`: a fraction of the training examples at random, without replacement; int64, sorted.

    Raises:
        ValueError: if it would be empty, or hold every example.
    """
    size = round(fraction * train_set_size) if is_number(fraction) and 0 < fraction < 1 else 0
    if not 0 < size < train_set_size:
        raise ValueError(
            f"fraction must be between 0 and 1 and leave some of the {train_set_size} training examples in and some "
            f"out, got {fraction!r}; use 0.5, or have more examples"
        )
    key = stream_key("subset", seed, subset, train_set_size, float(fraction))
    words = random_words(key, torch.arange(train_set_size)).numpy()
    return np.sort(np.argsort(words, kind="stable")[:size])


def training_seed(seed: int, subset: int, repeat: int) -> int:
    """The seed of a subset's training run number `repeat`: 0 to 2³² - 1, another for each of the same `seed`.

    A bijection of 32-bit words (the finalizer of MurmurHash3, Appleby, 2011) of the two numbers side by side.

    Raises:
        ValueError: beyond 2²⁰ subsets or 2¹² runs of each.
    """
    if subset >= 2**_SUBSET_BITS or repeat >= _WORD >> _SUBSET_BITS:
        raise ValueError(
            f"at most {2**_SUBSET_BITS:,} subsets with {_WORD >> _SUBSET_BITS:,} seeds each have training seeds of "
            f"their own, got subset {subset} with seed {repeat}; use fewer"
        )
    word = (repeat << _SUBSET_BITS | subset) ^ stream_key("training", seed) % _WORD
    word = (word ^ word >> 16) * 0x85EBCA6B % _WORD
    word = (word ^ word >> 13) * 0xC2B2AE35 % _WORD
    return word ^ word >> 16


def subset_runs(seed: int, train_set_size: int, fraction: float, subsets: int, seeds: int) -> list[TrainingRun]:
    """The runs of a ground truth: the first subset with each of its training seeds, then the second, and so on."""
    runs, seed = [], check_count(seed, "seed", least=0)
    train_set_size, seeds = check_count(train_set_size, "train_set_size"), check_count(seeds, "seeds")
    for i in range(check_count(subsets, "subsets")):
        indices = random_subset(seed, i, train_set_size, fraction)
        runs += [TrainingRun(indices, training_seed(seed, i, s), f"subset {i}, seed {s}") for s in range(seeds)]
    return runs


def runs_without(sets: Sequence[tuple[str, Array]], train_set_size: int, seeds: int, seed: int) -> list[TrainingRun]:
    """Every set of removed examples, (name, indices), with each training seed, the same ones for all sets."""
    runs = []
    for name, removed in sets:
        indices = np.flatnonzero(~as_mask(removed, train_set_size))
        runs += [TrainingRun(indices, training_seed(seed, 0, s), f"{name}, seed {s}") for s in range(seeds)]
    return runs
