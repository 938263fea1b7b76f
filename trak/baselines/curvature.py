"""The training loss as curvlinops wants it, its curvature as a linear operator, and scores from the inverse."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from trak._utils.optional import import_optional_dependency
from trak._utils.validation import is_number
from trak.baselines.base import IndexedLoader, LoadedCheckpoint
from trak.baselines.gradient_features import Directions, Gradients
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.projectors import Identity
from trak.tasks import Task
from trak.tasks.classification import Classification

RELATIVE_DAMPING = 0.1
_COPIES = 10


def require_curvlinops() -> Any:
    """The package curvlinops."""
    return import_optional_dependency("curvlinops", "influence functions need curvlinops", "baselines")


def check_damping(damping: float | None) -> float | None:
    """The damping, if it is None or finite and 0 or more."""
    if damping is not None and not (is_number(damping) and 0 <= damping < float("inf")):
        raise ValueError(
            f"damping must be 0 or more and finite, or None for a relative one, got {damping!r}; give another number, "
            "or None"
        )
    return None if damping is None else float(damping)


def has_cross_entropy(task: Task) -> TypeGuard[Classification]:
    """Whether the training loss is the cross-entropy of logits."""
    own = type(task)
    has_defaults = own.loss is Task.loss and own.weights is Task.weights
    return isinstance(task, Classification) and own.output is Classification.output and has_defaults


class Prediction(nn.Module):
    """The model as a function of {"batch": batch}; what it returns is `predict(model, batch)`."""

    def __init__(self, model: nn.Module, predict: Callable[[nn.Module, Batch], Tensor]) -> None:
        super().__init__()
        self.model, self._predict = model, predict

    def forward(self, inputs: dict[str, Batch]) -> Tensor:
        return self._predict(self.model, inputs["batch"])


class MeanLoss(nn.Module):
    """The mean of ℓ(f), for predictions f, which know their labels."""

    reduction = "mean"

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task

    def forward(self, prediction: Tensor, y: Tensor) -> Tensor:
        return self._task.loss(prediction).mean()


class _Pairs:
    """Batches as curvlinops takes them. Each y is zeros: none of the curvatures here depends on it."""

    def __init__(self, data: IndexedLoader, y: Callable[[int], Tensor]) -> None:
        self._data, self._y = data, y

    def __iter__(self) -> Iterator[tuple[dict[str, Batch], Tensor]]:
        for _, batch in self._data:
            yield {"batch": batch}, self._y(batches.size(batch))


def logits_of(task: Classification) -> Callable[[nn.Module, Batch], Tensor]:
    """The logits, divided by the task's temperature."""
    return lambda model, batch: task.logits_and_labels(model, batch)[0] / task.temperature


def make_operator(
    kind: Any,
    loaded: LoadedCheckpoint,
    predict: Callable[[nn.Module, Batch], Tensor],
    loss: nn.Module,
    y: Callable[[int], Tensor] = partial(torch.zeros, dtype=torch.int64),  # noqa: B008
    **more: Any,
) -> Any:
    """A linear operator of curvlinops of the given class, of shape (p, p) for the p numbers in `loaded.parameters`."""
    own = dict(loaded.model.named_parameters())
    return kind(
        Prediction(loaded.model, predict), loss, [own[name] for name in loaded.parameters], _Pairs(loaded.train, y),
        check_deterministic=False, num_data=loaded.train.size, batch_size_fn=lambda x: batches.size(x["batch"]), **more,
    )  # fmt: skip


def hessian_operator(loaded: LoadedCheckpoint, kind: str) -> Any:
    """The Hessian of the mean training loss ("exact") or its generalised Gauss-Newton matrix ("ggn"), (p, p).

    The latter linearises the logits where the loss is their cross-entropy (Schraudolph, 2002), and
    f itself for every other task.
    """
    library, task = require_curvlinops(), loaded.task
    operator = library.HessianLinearOperator if kind == "exact" else library.GGNLinearOperator
    if kind == "ggn" and has_cross_entropy(task):
        return make_operator(operator, loaded, logits_of(task), nn.CrossEntropyLoss())
    return make_operator(operator, loaded, task.output, MeanLoss(task))


def influences(
    loaded: LoadedCheckpoint, gradients: Gradients, solve: Callable[[Tensor], Tensor], memory_budget: int, limit: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Q_i ∇f_tᵀ (H + λI)⁻¹ ∇f_i / n, as blocks with their first training example and first target.

    Args:
        solve: (H + λI)⁻¹ v for columns v, (p, m).
        memory_budget: bytes that the targets' gradients, and what `solve` makes of them, may take.
        limit: how many targets to solve for at once, at most.
    """
    p = sum(gradients.sizes.values())
    at_once = max(1, min(limit, memory_budget // (_COPIES * gradients.dtype.itemsize * p)))
    for column, targets in _groups(gradients, loaded, at_once):
        directions = Directions(solve(targets.T.contiguous()) / loaded.train.size, gradients.sizes)
        for start, rows in gradients.rows(directions, loaded.train):
            yield start, column, rows.out_to_loss_grad[:, None] * rows.features


def _groups(gradients: Gradients, loaded: LoadedCheckpoint, at_once: int) -> Iterator[tuple[int, Tensor]]:
    """The targets' whole gradients (m, p), at most so many at once, with the index of the first."""
    column, held = 0, list[Tensor]()
    for _, rows in gradients.rows(Identity(), loaded.targets):
        held.extend(rows.features.unbind())
        while len(held) >= at_once:
            group, held = held[:at_once], held[at_once:]
            yield column, torch.stack(group)
            column += at_once
    if held:
        yield column, torch.stack(held)
