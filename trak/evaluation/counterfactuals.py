"""Counterfactuals: take away what a method calls most helpful, train again, and see what becomes of the target."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from trak._utils.validation import check_indices
from trak.distributed import Ray
from trak.evaluation.counterfactual_results import RANDOM, Counterfactuals, of_right
from trak.evaluation.retraining import Retrainer, Train, random_subset, runs_without
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap
from trak.evaluation.validation import Choice, Scores, as_scores, count, finite, numbers_of_examples
from trak.inputs.batches import Batch
from trak.store.location import Location
from trak.tasks import Task

Array = np.ndarray[Any, Any]


def counterfactuals(
    methods: Mapping[str, Scores],
    train: Train,
    task: Task | str | Any,
    targets: Iterable[Batch],
    *,
    train_set_size: int,
    save_dir: Location,
    k: Sequence[int],
    chosen: Choice | None = None,
    seeds: int = 5,
    random_sets: int = 3,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    backend: str | Ray = "loky",
    progress: bool = True,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Counterfactuals:
    """Remove each target's top-k training examples by each method, retrain, and compare with models trained on
    everything (data counterfactuals and brittleness: Ilyas et al., 2022).

    `seeds` · (1 + methods · k's · targets + k's · random_sets) models are trained, less those that `save_dir` has. A
    ground truth made with the same configuration may live in the same `save_dir`.

    Args:
        methods: scores (n_train, n_targets), or anything with such `.scores`, by name. Of equal scores the first count
            as higher.
        train, task, targets, train_set_size, save_dir, config, jobs, backend, progress: as of `retrain_on`.
        k: numbers of examples to remove.
        chosen: the targets to look at, by default all; each costs models of its own.
        seeds: models trained on each set. A target is predicted right if more than half of them predict it right.
        random_sets: random sets of each size k to compare with, shared by all targets.
        seed: of random sets, training and intervals.
        confidence: of the intervals: percentiles of the bootstrap over targets, two-sided.
        resamples: of the bootstrap.

    Raises:
        ValueError, TypeError: for arguments that can't be; NaN among the scores of chosen targets.
        RetrainingError, ImportError: as of `retrain_on`.
    """
    if not isinstance(methods, Mapping) or not methods or RANDOM in methods:
        raise ValueError(
            f"methods must be scores by name, one or more, none called {RANDOM!r}, got {methods!r:.80}; pass a dict, "
            "such as {'trak': scores}"
        )
    sizes = numbers_of_examples(k, count(train_set_size, "train_set_size", least=2) - 1)
    seeds, random_sets = count(seeds, "seeds"), count(random_sets, "random_sets")
    bootstrap = Bootstrap(resamples, confidence, seed)
    retrainer = Retrainer(
        train, task, targets, train_set_size=train_set_size, save_dir=save_dir, config=config, jobs=jobs,
        backend=backend, progress=progress,
    )  # fmt: skip
    columns = check_indices(chosen, retrainer.store.config.num_targets, "chosen")
    orders = _orders(methods, columns, (train_set_size, retrainer.store.config.num_targets))
    sets = [("everything", np.empty(0, np.int64))]
    for (name, order), size in product(orders.items(), sizes):
        sets += [
            (f"all but the top {size} of target {target} by {name}", order[:size, j])
            for j, target in enumerate(columns.tolist())
        ]
    for size, i in product(sizes, range(random_sets)):
        removed = random_subset(seed, i, train_set_size, size / train_set_size)
        sets.append((f"all but {size} random ones, number {i}", removed))
    found = retrainer.run(runs_without(sets, train_set_size, seeds, seed))
    shape = len(methods), len(sizes), len(columns)

    def by_method(values: Array) -> tuple[Array, Array, Array]:
        """By set: all (targets,); without the top k (methods, k, targets), without random ones (k, sets, targets)."""
        first, own, random = np.split(values, [1, 1 + np.prod(shape)])
        own = np.diagonal(own.reshape(*shape, shape[-1]), axis1=-2, axis2=-1)
        return first[0], own, random.reshape(shape[1], random_sets, shape[2])

    before, own, random = by_method(found.outputs[:, columns].reshape(len(sets), seeds, -1).mean(axis=1))
    drops = before - np.concatenate([own, random.mean(axis=1)[None]])
    flips = None
    if found.correct is not None:
        right = found.correct[:, columns].reshape(len(sets), seeds, -1).mean(axis=1) > 0.5
        was, own, random = by_method(right)
        flips = np.where(was, 1 - np.concatenate([own, random.mean(axis=1)[None]]), np.nan)
    return Counterfactuals(
        methods=(*orders, RANDOM),
        k=tuple(sizes),
        targets=columns,
        drops=drops,
        flips=flips,
        drop_intervals=bootstrap.of_means(drops),
        flip_intervals=None if flips is None else bootstrap.of_means(of_right(flips)),
        confidence=bootstrap.confidence,
        seeds=seeds,
    )


def _orders(methods: Mapping[str, Scores], columns: Array, shape: tuple[int, int]) -> dict[str, Array]:
    """Training examples from the highest score down for each target: int64 (n_train, targets) by method."""
    orders = {}
    for name, given in methods.items():
        scores = as_scores(given, f"the scores of {name!r}")
        if scores.shape != shape:
            raise ValueError(
                f"expected scores (n_train, n_targets) of shape {shape} from {name!r}, got {scores.shape}; pass "
                "scores of the same examples for the same targets"
            )
        orders[str(name)] = np.argsort(-finite(scores[:, columns], f"the scores of {name!r}"), axis=0, kind="stable")
    return orders
