"""Exact Shapley values of a nearest-neighbour classifier."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from trak.baselines.base import AttributionData, CheckpointBaseline, CheckpointRun, register_baseline
from trak.baselines.representations import LayerReader, check_features
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
        of: str = "output",
        pool: int | Sequence[int] | None = None,
        labels: Callable[[Batch], Tensor] | None = None,
    ) -> None:
        """
        Args:
            k: number of neighbours K, at least 1.
            layer, of, pool: where the features come from, see `trak.baselines.representations.LayerReader`; by
                default they are the model's own input, flattened.
            labels: returns the labels (B,) of a batch; needed for tasks that are no classification.

        Raises:
            ValueError, TypeError: for arguments that can't be.
        """
        if isinstance(k, bool) or not hasattr(k, "__index__") or k < 1:
            raise ValueError(f"k must be an integer, at least 1, got {k!r}; give the number of neighbours that vote")
        self.k, self.layer, self.labels = int(k), layer, labels
        self._layer = LayerReader("", "input", pool) if layer is None else LayerReader(layer, of, pool)
        self.of, self.pool = self._layer.of, self._layer.pool

    def _check_task(self, task: Task) -> Task:
        if self.labels is None and not isinstance(task, Classification):
            raise ValueError(
                f"{type(task).__name__} is no classification task, so the examples' labels are unknown: pass "
                "labels=function of a batch"
            )
        return task

    def blocks(self, run: CheckpointRun) -> Iterator[tuple[int, int, Tensor]]:
        pieces = list(self._features(run, run.targets))
        targets, wanted = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        m = len(targets)
        distances = torch.empty(m, run.train.size, dtype=targets.dtype, device=targets.device)
        labels, start = torch.empty(run.train.size, dtype=wanted.dtype, device=wanted.device), 0
        for features, own in self._features(run, run.train, targets):
            stop = start + len(features)
            # Not by a matrix product, whose rounding would decide between neighbours that are nearly as near.
            distances[:, start:stop] = torch.cdist(targets, features, compute_mode="donot_use_mm_for_euclid_dist")
            labels[start:stop], start = own, stop
        step = max(1, _SORTED_AT_ONCE // run.train.size)
        for first in range(0, m, step):
            some = slice(first, first + step)
            yield 0, first, shapley_of_neighbours(distances[some], labels == wanted[some, None], self.k).T

    def _features(
        self, run: CheckpointRun, data: AttributionData, like: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for start, batch in data:
            with torch.no_grad():
                features, labels = self._layer.read(run.model, batch, partial(self._labels, run, batch))
            like = features = check_features(features, like, f"{data.what}, {run.where}", start)
            yield features, labels.reshape(-1)

    def _labels(self, run: CheckpointRun, batch: Batch) -> Tensor:
        if self.labels is not None:
            run.task.output(run.model, batch)
            return self.labels(batch)
        assert isinstance(run.task, Classification)  # as checked before
        return run.task.logits_and_labels(run.model, batch)[1]


def shapley_of_neighbours(distances: Tensor, right: Tensor, k: int) -> Tensor:
    """Shapley values for the utility `v(S) = (1/k) Σ right` over the `min(k, |S|)` nearest of S.

    With α_1, α_2, ... the examples by distance: s(α_n) = right(α_n) min(k, n)/(n k), and
    s(α_i) = s(α_{i+1}) + (right(α_i) - right(α_{i+1})) min(k, i)/(i k).

    Args:
        distances: of n examples from each of m targets, (m, n).
        right: whether the example has the target's label, (m, n).
        k: number of neighbours.

    Returns:
        (m, n), float64.
    """
    order = distances.argsort(dim=1, stable=True)
    ranked = right.gather(1, order).to(torch.float64)
    rank = torch.arange(1, ranked.shape[1] + 1, dtype=torch.float64, device=ranked.device)
    following = torch.nn.functional.pad(ranked[:, 1:], (0, 1))
    steps = (ranked - following) * (rank.clamp(max=k) / (rank * k))
    values = steps.flip(1).cumsum(1).flip(1)
    return torch.empty_like(values).scatter_(1, order, values)
