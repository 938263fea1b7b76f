"""Counterfactuals: remove the examples that a method calls most helpful, retrain, and measure the target again."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from trak._utils.typing import Array
from trak._utils.validation import check_count
from trak.distributed import Ray
from trak.evaluation.counterfactual_results import RANDOM_REMOVAL, Counterfactuals, flips_of_correct
from trak.evaluation.ranking import top_indices
from trak.evaluation.retraining import Retrainer, Train, random_subset, runs_without
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap
from trak.evaluation.validation import Indices, Scores, as_finite, as_indices, as_scores, check_ks
from trak.inputs.batches import Batch
from trak.store.location import Location
from trak.tasks import Task


def counterfactuals(
    methods: Mapping[str, Scores],
    train: Train,
    task: Task | str | Any,
    targets: Iterable[Batch],
    *,
    train_set_size: int,
    save_dir: Location,
    k: Sequence[int],
    target_indices: Indices | None = None,
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
        train, task, targets, train_set_size, save_dir, config, jobs, backend, progress: see `retrain_on`.
        k: numbers of examples to remove.
        target_indices: the targets to look at, by default all; each costs models of its own.
        seeds: models trained on each set. A target is predicted right if more than half of them predict it right.
        random_sets: random sets of each size k to compare with, shared by all targets.
        seed: of random sets, training and intervals.
        confidence: of the intervals: percentiles of the bootstrap over targets, two-sided.
        resamples: of the bootstrap.

    Raises:
        ValueError, TypeError: for invalid arguments; NaN among the scores of these targets.
        RetrainingError, ImportError: see `retrain_on`.
    """
    if not isinstance(methods, Mapping) or not methods or RANDOM_REMOVAL in methods:
        raise ValueError(
            f"methods must be scores by name, one or more, none called {RANDOM_REMOVAL!r}, got {methods!r:.80}; pass a "
            "dict, such as {'trak': scores}"
        )
    ks = check_ks(k, check_count(train_set_size, "train_set_size", least=2) - 1)
    seeds, random_sets = check_count(seeds, "seeds"), check_count(random_sets, "random_sets")
    bootstrap = Bootstrap(resamples, confidence, seed)
    retrainer = Retrainer(
        train, task, targets, train_set_size=train_set_size, save_dir=save_dir, config=config, jobs=jobs,
        backend=backend, progress=progress,
    )  # fmt: skip
    num_targets = retrainer.store.config.num_targets
    columns = as_indices(target_indices, num_targets, "target_indices")
    orders = _orders(methods, columns, (train_set_size, num_targets))
    sets = [("everything", np.empty(0, np.int64))]
    for (name, order), size in product(orders.items(), ks):
        sets += [
            (f"all but the top {size} of target {target} by {name}", order[:size, j])
            for j, target in enumerate(columns.tolist())
        ]
    for size, i in product(ks, range(random_sets)):
        removed = random_subset(seed, i, train_set_size, size / train_set_size)
        sets.append((f"all but {size} random ones, number {i}", removed))
    found = retrainer.run(runs_without(sets, train_set_size, seeds, seed))
    shape = len(methods), len(ks), len(columns)

    def before_and_after(values: Array) -> tuple[Array, Array]:
        """Of values by set: of the models trained on everything (targets,), and of those without the examples of each
        method, the last of them random removal (methods + 1, k, targets)."""
        first, own, random = np.split(values, [1, 1 + np.prod(shape)])
        own = np.diagonal(own.reshape(*shape, shape[-1]), axis1=-2, axis2=-1)
        random = random.reshape(shape[1], random_sets, shape[2]).mean(axis=1)
        return first[0], np.concatenate([own, random[None]])

    before, after = before_and_after(found.outputs[:, columns].reshape(len(sets), seeds, -1).mean(axis=1))
    drops, flips = before - after, None
    if found.correct is not None:
        right = found.correct[:, columns].reshape(len(sets), seeds, -1).mean(axis=1) > 0.5
        right_before, right_after = before_and_after(right)
        flips = np.where(right_before, 1 - right_after, np.nan)
    return Counterfactuals(
        methods=(*orders, RANDOM_REMOVAL),
        k=tuple(ks),
        targets=columns,
        drops=drops,
        flips=flips,
        drop_intervals=bootstrap.mean_intervals(drops),
        flip_intervals=None if flips is None else bootstrap.mean_intervals(flips_of_correct(flips)),
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
        orders[str(name)] = top_indices(as_finite(scores[:, columns], f"the scores of {name!r}"))
    return orders
