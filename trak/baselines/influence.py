"""Influence functions by products with the Hessian."""

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from trak._utils.counter_random import random_normals, random_signs, stream_key
from trak._utils.messages import first_line
from trak._utils.validation import check_count, check_fraction, check_option
from trak.baselines.base import LoadedCheckpoint, register_baseline
from trak.baselines.curvature import (
    RELATIVE_DAMPING,
    check_damping,
    hessian_operator,
    influences,
    require_curvlinops,
)
from trak.baselines.gradient_features import Directions, GradientBaseline, Gradients
from trak.gradients import MEMORY_BUDGET
from trak.gradients.layers import stepwise_recurrence
from trak.tasks import Task

_COLUMNS = 16


@register_baseline("influence_functions")
class InfluenceFunctions(GradientBaseline):
    """Q_i ∇f_tᵀ (H + λI)⁻¹ ∇f_i / n: by how much f_t is higher than it would be if the model were trained without i,
    to first order (Koh & Liang, "Understanding black-box predictions via influence functions", 2017, equation 2).

    H is the Hessian of the mean training loss, or its generalised Gauss-Newton matrix, and λ what is
    added to it: the weight decay if the loss is convex and has one. Mean over checkpoints.

    The solver "cg" solves for each target by conjugate gradients, every step a pass over the training
    set. "arnoldi" finds the top eigenpairs of H once, as many passes as about twice their number, and
    drops the rest (Schioppa et al., "Scaling up influence functions", 2022). H is multiplied with up to
    16 vectors at once, which takes the memory of training on 16 times the batch.
    """

    _one_pass = False

    def __init__(
        self,
        solver: str = "cg",
        damping: float | None = None,
        hessian: str = "ggn",
        *,
        rank: int = 100,
        tolerance: float = 1e-4,
        max_iterations: int = 200,
        seed: int = 0,
        grad_wrt: str | Iterable[str] | None = None,
        engine: str = "auto",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """
        Args:
            solver: "cg" or "arnoldi".
            damping: λ, absolute; None for a tenth of H's mean eigenvalue, which is estimated from random
                probes.
            hessian: "ggn", which has no negative eigenvalue if ℓ is convex, or "exact".
            rank: number of eigenpairs ("arnoldi"); from p on, all of them.
            tolerance: of the solution, relative.
            max_iterations: of conjugate gradients, at most.
            seed: of the random vectors that Arnoldi starts from and the mean eigenvalue is estimated with.
            grad_wrt, engine, memory_budget: as for `GradientDot`.

        Raises:
            ValueError, TypeError: for invalid arguments.
        """
        self.solver = check_option(solver, "solver", ("cg", "arnoldi"))
        self.hessian = check_option(hessian, "hessian", ("ggn", "exact"))
        self.damping, self.tolerance = check_damping(damping), check_fraction(tolerance, "tolerance")
        self.rank, self.max_iterations = check_count(rank, "rank"), check_count(max_iterations, "max_iterations")
        self.seed = seed
        super().__init__(grad_wrt, engine, memory_budget)

    def _check_task(self, task: Task) -> Task:
        require_curvlinops()
        if not task.has_loss:
            raise ValueError(
                f"{type(task).__name__} says how the loss changes with the output, not what the loss is; write a "
                "trak.tasks.Task with output() and loss()"
            )
        return task

    def blocks(self, loaded: LoadedCheckpoint) -> Iterator[tuple[int, int, Tensor]]:
        gradients, matrix = Gradients(loaded, self.engine, self.memory_budget), _Matrix(loaded, self.hessian)
        damping = RELATIVE_DAMPING * matrix.mean_eigenvalue(self.seed) if self.damping is None else self.damping
        if self.solver == "cg":
            solve = partial(_conjugate_gradients, matrix, damping, self.tolerance, self.max_iterations)
            yield from influences(loaded, gradients, solve, self.memory_budget, _COLUMNS)
            return
        values, vectors = _top_eigenpairs(matrix, self.rank, self.seed, self.tolerance)
        values += damping
        # Without those whose damped value is zero but for rounding, or negative.
        least = len(vectors) * torch.finfo(torch.float32).eps * float(values.abs().max()) / 1e3
        kept, negative = values > least, int((values < -least).sum())
        if not kept.any():
            raise ValueError(
                f"no damped eigenvalue is positive, the largest is {float(values.max()):.3g}; use a larger damping, or "
                "hessian='ggn'"
            )
        if negative:
            warnings.warn(
                f"{negative} negative eigenvalues are left out; use a larger damping, or hessian='ggn'", stacklevel=2
            )
        values, vectors = values[kept], vectors[:, kept]
        directions = Directions((vectors / values.sqrt()).to(gradients.dtype), gradients.sizes)
        targets = torch.cat([rows.features for _, rows in gradients.rows(directions, loaded.targets)])
        targets /= loaded.train.size
        for start, rows in gradients.rows(directions, loaded.train):
            yield start, 0, rows.out_to_loss_grad[:, None] * (rows.features @ targets.T)


class _Matrix:
    """H, as products with a few columns at a time."""

    def __init__(self, loaded: LoadedCheckpoint, kind: str) -> None:
        self._operator, self._model = hessian_operator(loaded, kind), loaded.model
        self.p: int = self._operator.shape[0]
        self.dtype, self.device = self._operator.dtype, self._operator.device

    def __matmul__(self, columns: Tensor) -> Tensor:
        try:
            # Fused attention and recurrent layers have no forward derivative.
            with sdpa_kernel(SDPBackend.MATH), stepwise_recurrence(self._model):
                parts = [self._operator @ some for some in columns.to(self.dtype).split(_COLUMNS, dim=1)]
        except RuntimeError as error:
            # Tensors of torch.func have no storage, in which a packed sequence's lengths are looked up.
            known = any(part in str(error) for part in ("vmap", "have storage"))
            if not known and not isinstance(error, NotImplementedError):
                raise
            raise ValueError(
                "torch.func can't differentiate the model twice, as products with its Hessian need "
                f"({first_line(error)}); use EKFAC or, where the model packs sequences, leave them padded"
            ) from error
        return torch.cat(parts, dim=1).to(columns)

    def mean_eigenvalue(self, seed: int) -> float:
        """trace(H)/p, estimated (Hutch++; Meyer et al., 2021, algorithm 1)."""
        rows = torch.arange(self.p, device=self.device)
        first, second = (
            random_signs(stream_key("hutch++", seed, i), rows, _COLUMNS).to(self.dtype) for i in ("range", "rest")
        )
        basis = torch.linalg.qr(self @ first).Q
        rest = second - basis @ (basis.T @ second)
        mean = float((basis * (self @ basis)).sum() + (rest * (self @ rest)).sum() / _COLUMNS) / self.p
        if not mean > 0:
            raise ValueError(f"the Hessian's mean eigenvalue is {mean:.3g}: give damping, or use hessian='ggn'")
        return mean


def _conjugate_gradients(
    matrix: _Matrix, damping: float, tolerance: float, max_iterations: int, columns: Tensor
) -> Tensor:
    """(H + λI)⁻¹ times columns (p, m)."""
    from linear_operator.utils.linear_cg import linear_cg

    def product(v: Tensor) -> Tensor:
        return matrix @ v + damping * v

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the average residual; the largest is looked at here
        solution = linear_cg(
            product, columns, tolerance=tolerance / 10, stop_updating_after=tolerance / 10, max_iter=max_iterations,
            max_tridiag_iter=0, eps=torch.finfo(columns.dtype).tiny,
        )  # fmt: skip
    residual = (columns - product(solution)).norm(dim=0) / columns.norm(dim=0).clamp_min(1e-30)
    worst = float(residual.nan_to_num(torch.inf).max())
    if worst > 0.1:
        raise ValueError(
            f"conjugate gradients did not converge: a relative residual of {worst:.2g} after at most {max_iterations} "
            "iterations. Use a larger damping, more max_iterations or, if it is 'exact' and so may have negative "
            "eigenvalues, hessian='ggn'"
        )
    if worst > tolerance:
        warnings.warn(
            f"conjugate gradients reached a relative residual of {worst:.2g}, tolerance is {tolerance:.2g}: use more "
            "max_iterations or a larger damping",
            stacklevel=2,
        )
    return solution


def _top_eigenpairs(matrix: _Matrix, rank: int, seed: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues (rank,) and their eigenvectors (p, rank), float64."""
    rows = torch.arange(matrix.p, device=matrix.device)
    if rank >= matrix.p:
        dense = (matrix @ torch.eye(matrix.p, dtype=matrix.dtype, device=matrix.device)).double()
        values, vectors = torch.linalg.eigh((dense + dense.T) / 2)
        return values, vectors
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    def product(v: Any) -> Any:
        column = torch.from_numpy(v.reshape(-1, 1)).to(matrix.device)
        return (matrix @ column).cpu().numpy()

    start = random_normals(stream_key("arnoldi", seed), rows, 1)[:, 0].double().cpu().numpy()
    operator = LinearOperator((matrix.p, matrix.p), matvec=product, dtype=np.float64)
    try:
        values, vectors = eigsh(operator, k=rank, which="LA", v0=start, tol=tolerance)
    except ArpackNoConvergence as error:
        raise ValueError(f"Arnoldi's iteration did not converge to rank={rank} eigenpairs; use fewer") from error
    return torch.from_numpy(values).to(matrix.device), torch.from_numpy(vectors).to(matrix.device)
