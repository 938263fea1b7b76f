"""Exact Shapley values of a nearest-neighbour classifier."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from trak._utils.validation import check_count
from trak.baselines.base import CheckpointBaseline, LoadedCheckpoint, register_baseline
from trak.baselines.representations import LayerFeatures
from trak.inputs.batches import Batch
from trak.tasks import Task
from trak.tasks.classification import Classification

_SORTED_AT_ONCE = 1 << 23


@register_baseline("knn_shapley")
class KNNShapley(CheckpointBaseline):
    """Shapley values of the training examples for a K-nearest-neighbour classifier's probability of the target's label,
    exact and in closed form (Jia et al., "Efficient task-specific data valuation for nearest neighbor algorithms",
    2019, theorem 1). Mean over checkpoints.

    Distances are Euclidean, between a layer's features or the model's inputs; of equally near
    examples the first counts as nearer. The scores of a target add up to the probability that
    all examples together give to its label.
    """

    def __init__(
        self,
        k: int = 5,
        *,
        layer: str | None = None,
        features_from: str = "output",
        pool: int | Sequence[int] | None = None,
        labels: Callable[[Batch], Tensor] | None = None,
    ) -> None:
        """
        Args:
            k: number of neighbours K, at least 1.
            layer, features_from, pool: where the features come from, see
                `trak.baselines.representations.LayerFeatures`; by default they are the model's own input, flattened.
            labels: returns the labels (B,) of a batch; needed for tasks other than classification.

        Raises:
            ValueError, TypeError: for invalid arguments.
        """
        self.k, self.layer, self.labels = check_count(k, "k"), layer, labels
        name, source = ("", "input") if layer is None else (layer, features_from)
        self._features = LayerFeatures(name, source, pool)
        self.features_from, self.pool = self._features.features_from, self._features.pool

    def _check_task(self, task: Task) -> Task:
        if self.labels is None and not isinstance(task, Classification):
            raise ValueError(
                f"{type(task).__name__} is not a classification task, so the examples' labels are unknown: pass "
                "labels=function of a batch"
            )
        return task

    def blocks(self, loaded: LoadedCheckpoint) -> Iterator[tuple[int, int, Tensor]]:
        read_labels = partial(self._labels, loaded)
        _, features_of_targets, labels_of_targets = zip(
            *self._features.iterate(loaded, loaded.targets, read_labels), strict=True
        )
        targets, wanted = torch.cat(features_of_targets), torch.cat(labels_of_targets).reshape(-1)
        m = len(targets)
        distances = torch.empty(m, loaded.train.size, dtype=targets.dtype, device=targets.device)
        labels = torch.empty(loaded.train.size, dtype=wanted.dtype, device=wanted.device)
        for start, features, own in self._features.iterate(loaded, loaded.train, read_labels, targets):
            rows = slice(start, start + len(features))
            # Not by a matrix product, whose rounding would decide between neighbours that are nearly as near.
            distances[:, rows] = torch.cdist(targets, features, compute_mode="donot_use_mm_for_euclid_dist")
            labels[rows] = own.reshape(-1)
        step = max(1, _SORTED_AT_ONCE // loaded.train.size)
        for first in range(0, m, step):
            some = slice(first, first + step)
            yield 0, first, shapley_of_neighbours(distances[some], labels == wanted[some, None], self.k).T

    def _labels(self, loaded: LoadedCheckpoint, batch: Batch) -> Tensor:
        if self.labels is not None:
            loaded.task.output(loaded.model, batch)
            return self.labels(batch)
        assert isinstance(loaded.task, Classification)  # as checked before
        return loaded.task.logits_and_labels(loaded.model, batch)[1]


def shapley_of_neighbours(distances: Tensor, right: Tensor, k: int) -> Tensor:
    """Shapley values for the utility `v(S) = (1/k) Σ right` over the `min(k, |S|)` nearest of S.

    With α_1, α_2, ... the examples by distance: s(α_n) = right(α_n) min(k, n)/(n k), and
    s(α_i) = s(α_{i+1}) + (right(α_i) - right(α_{i+1})) min(k, i)/(i k).

    `distances` (m, n) are those of n examples from m targets, `right` (m, n) says whether they have the same label;
    returns (m, n) in float64.
    """
    order = distances.argsort(dim=1, stable=True)
    ranked = right.gather(1, order).to(torch.float64)
    rank = torch.arange(1, ranked.shape[1] + 1, dtype=torch.float64, device=ranked.device)
    following = torch.nn.functional.pad(ranked[:, 1:], (0, 1))
    steps = (ranked - following) * (rank.clamp(max=k) / (rank * k))
    values = steps.flip(1).cumsum(1).flip(1)
    return torch.empty_like(values).scatter_(1, order, values)
