"""Slow reference computations: loops over single examples and dense linear algebra in float64."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trak.inputs import batches
from trak.projectors import Projector
from trak.tasks import Task


def gradients(model: nn.Module, task: Task, batch: Any, names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Compute per-example gradients by a loop of `torch.autograd.grad`.

    Args:
        model: the model; a copy in evaluation mode is differentiated.
        task: has the output to differentiate.
        batch: B examples.
        names: parameters to differentiate by; by default all.

    Returns:
        Tensors of shape `(B, *parameter.shape)` by parameter name.
    """
    model = copy.deepcopy(model).eval()
    own = {name: p.requires_grad_() for name, p in model.named_parameters() if names is None or name in names}
    rows = []
    for i in range(batches.size(batch)):
        output = task.output(model, batches.take(batch, i, i + 1)).sum()
        rows.append(torch.autograd.grad(output, list(own.values()), allow_unused=True, materialize_grads=True))
    return {name: torch.stack(grads) for name, grads in zip(own, zip(*rows, strict=True), strict=True)}


def double(batch: Any) -> Any:
    """Return the batch with its floating-point tensors in float64."""
    return batches.map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)


def features(
    model: nn.Module, task: Task, batch: Any, projector: Projector, model_id: int, names: Sequence[str] | None = None
) -> np.ndarray:
    """Compute projected per-example gradients (B, k) in float64."""
    found = gradients(copy.deepcopy(model).double(), task, double(batch), names)
    return projector.project(found, model_id).numpy()


def scores(
    model: nn.Module,
    task: Task,
    checkpoints: Sequence[dict[str, Tensor]],
    train: Sequence[Any],
    targets: Sequence[Any],
    projector: Projector,
    *,
    weighting: str,
    damping: float | None,
    lambda_reg: float | None = None,
    names: Sequence[str] | None = None,
    loss_temperature: float = 3.0,
    normalize_checkpoints: bool = True,
) -> np.ndarray:
    """Compute scores (n, m) in float64 with an explicit inverse: τ = mean_c φ_t (ΦᵀWΦ + λI)⁻¹ φ_i · mean_c Q_i.

    The arguments are those of `trak.attribute`; `lambda_reg` is λ itself, instead of relative to trace(K)/k.
    """
    kernels, qs, sizes = [], [], []
    t = loss_temperature if task.has_loss_temperature else 1.0
    for model_id, checkpoint in enumerate(checkpoints):
        exact = copy.deepcopy(model).eval()
        exact.load_state_dict(checkpoint)
        exact.double()
        phi, phi_t = (
            np.concatenate([features(exact, task, batch, projector, model_id, names) for batch in data])
            for data in (train, targets)
        )
        with torch.no_grad():
            weights = [task.weights(exact, b, task.output(exact, b) / t) for b in map(double, train)]
        q, r = (torch.cat(parts).numpy() for parts in zip(*weights, strict=True))
        gram = phi.T @ np.diag(r if weighting == "ggn" else np.ones(len(phi))) @ phi
        lam = lambda_reg if lambda_reg is not None else damping * np.trace(gram) / len(gram)
        kernels.append(phi @ np.linalg.inv(gram + lam * np.eye(len(gram))) @ phi_t.T)
        qs.append(t * q)
        sizes.append(np.linalg.norm(phi_t, axis=1) / np.sqrt(np.trace(gram)))
    if normalize_checkpoints:
        kernels = [kernel * np.mean(sizes, axis=0) / size for kernel, size in zip(kernels, sizes, strict=True)]
    return np.mean(kernels, axis=0) * np.mean(qs, axis=0)[:, None]
