"""Shapley values by retraining."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from trak._utils.typing import Array
from trak._utils.validation import check_count, check_option, is_number
from trak.baselines.base import Baseline, BaselineInputs, register_baseline
from trak.gradients import differentiable
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.loaders import count_examples
from trak.inputs.weights import device_of
from trak.tasks import Task, make_task


@register_baseline("data_shapley")
class DataShapley(Baseline):
    """Shapley values of the training examples for the outputs of a model trained on some of them, by truncated Monte
    Carlo (Ghorbani & Zou, "Data Shapley: equitable valuation of data for machine learning", 2019, algorithm 1).

    The score of i is the mean, over random orders of the training set, of what adding i to the examples
    before it changes. One training serves all targets. It takes about n trainings for each order:
    for small models alone. Model and checkpoints are not used, and the examples of `train` are only counted.
    """

    def __init__(
        self,
        train: Callable[[Array, int], nn.Module],
        *,
        permutations: int = 100,
        tolerance: float = 0.01,
        utility: str = "outputs",
        seed: int = 0,
    ) -> None:
        """
        Args:
            train: `train(indices, seed)` returns a model trained on the examples with these indices (int64,
                ascending, from none at all to all), the same one each time.
            permutations: number of random orders.
            tolerance: the rest of an order is left out, as worth nothing, once every utility is as near
                to that of the whole training set, in units of the distance between that and the utility
                of no example; 0 leaves out nothing.
            utility: "outputs": each target's own output; "mean": their mean, which gives one column.
            seed: of the orders, and passed to `train`.

        Raises:
            ValueError, TypeError: for invalid arguments.
        """
        if not callable(train):
            raise TypeError(
                f"train must be a function of indices and a seed that returns a model, got {train!r}; define "
                "train(indices, seed)"
            )
        if not is_number(tolerance) or not 0 <= tolerance < 1:
            raise ValueError(f"tolerance must be 0 or more and below 1, got {tolerance!r}; use 0 for no truncation")
        self.permutations = check_count(permutations, "permutations")
        self.utility = check_option(utility, "utility", ("outputs", "mean"))
        self.tolerance, self.seed, self._train = tolerance, seed, train

    def compute_scores(self, inputs: BaselineInputs) -> Array:
        task, targets, n = make_task(inputs.task), inputs.targets, count_examples(inputs.train, "train")
        count_examples(targets, "targets")
        rng = np.random.default_rng(self.seed)
        nothing, everything = (self._value(task, targets, np.arange(k, dtype=np.int64)) for k in (0, n))
        close = self.tolerance * np.abs(everything - nothing)
        total = np.zeros((n, len(everything)))
        with tqdm(total=self.permutations * n, desc=self.name, unit="model", disable=not inputs.progress) as bar:
            for _ in range(self.permutations):
                order, before = rng.permutation(n), nothing
                for position, example in enumerate(order):
                    if self.tolerance and (np.abs(everything - before) <= close).all():
                        bar.update(n - position)
                        break
                    chosen = np.sort(order[: position + 1]).astype(np.int64)
                    value = everything if len(chosen) == n else self._value(task, targets, chosen)
                    total[example] += value - before
                    before = value
                    bar.update(1)
        return total / self.permutations

    def _value(self, task: Task, targets: Iterable[Batch], indices: Array) -> Array:
        """Utilities of a subset, (n_targets,), or (1,) for their mean."""
        model = self._train(indices, self.seed)
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"train must return a torch.nn.Module, got {type(model).__name__}; let it return the trained model"
            )
        device = device_of(model)
        with torch.no_grad(), differentiable(model, ()):
            task.prepare(model)
            outputs = [task.output(model, batches.to_device(batch, device)).double().cpu() for batch in targets]
        found = torch.cat(outputs).numpy()
        if not np.isfinite(found).all():
            raise ValueError(
                f"the model trained on {len(indices)} examples, the first of them {indices[:5].tolist()}, has output "
                f"{found[~np.isfinite(found)][0]} for target {int(np.argmax(~np.isfinite(found)))}; make training "
                "converge on as few examples, or start from more"
            )
        return found if self.utility == "outputs" else found.mean(keepdims=True)
