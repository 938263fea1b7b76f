"""Influence functions by a Kronecker-factored Hessian."""

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trak._utils.torch_private import forward_hooks
from trak._utils.validation import check_option
from trak.baselines.base import IndexedLoader, LoadedCheckpoint, register_baseline
from trak.baselines.curvature import (
    RELATIVE_DAMPING,
    check_damping,
    has_cross_entropy,
    influences,
    logits_of,
    make_operator,
    require_curvlinops,
)
from trak.baselines.gradient_features import GradientBaseline, Gradients
from trak.gradients import MEMORY_BUDGET, differentiable, select_parameters
from trak.tasks import Regression, Task
from trak.tasks.classification import Classification

_TARGETS_AT_ONCE = 256


@register_baseline("ekfac")
class EKFAC(GradientBaseline):
    """Q_i ∇f_tᵀ (H + λI)⁻¹ ∇f_i / n, as `InfluenceFunctions`, with H the eigenvalue-corrected Kronecker-factored
    approximation of the Gauss-Newton matrix of the mean training loss, a block for each layer (George et al., 2018;
    for influence: Grosse et al., "Studying large language model generalization with influence functions", 2023).

    Covers nn.Linear and nn.Conv2d layers (without groups) that are called once in a forward pass and
    share no parameter; a warning names the parameters that are left out. For classification by the
    cross-entropy of logits and for regression. Mean over checkpoints.
    """

    _one_pass = False

    def __init__(
        self,
        damping: float | None = None,
        *,
        fisher: str = "type-2",
        sharing: str = "expand",
        seed: int = 0,
        grad_wrt: str | Iterable[str] | None = None,
        engine: str = "auto",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """
        Args:
            damping: λ, absolute; None for a tenth of H's mean eigenvalue.
            fisher: "type-2", exact, which takes a backward pass for each class, or "mc": one label drawn
                for each example from the model's own distribution.
            sharing: "expand" or "reduce", for layers applied at several positions of an example
                (Eschenhagen et al., 2023).
            seed: of the labels drawn.
            grad_wrt, engine, memory_budget: as for `GradientDot`.

        Raises:
            ValueError, TypeError: for invalid arguments.
        """
        self.fisher = check_option(fisher, "fisher", ("type-2", "mc"))
        self.sharing = check_option(sharing, "sharing", ("expand", "reduce"))
        self.damping, self.seed = check_damping(damping), seed
        super().__init__(grad_wrt, engine, memory_budget)

    def _check_task(self, task: Task) -> Task:
        require_curvlinops()
        if not (has_cross_entropy(task) or (isinstance(task, Regression) and type(task).loss is Regression.loss)):
            raise ValueError(
                "EK-FAC knows the curvature of the cross-entropy of logits and of squared error, and "
                f"{type(task).__name__} has another output or loss; use InfluenceFunctions, which takes any task"
            )
        return task

    def _parameters(self, model: nn.Module, task: Task, train: IndexedLoader) -> Sequence[str]:
        wanted = select_parameters(model, self.grad_wrt)
        called_once, owners = _called_once(model, task, train), defaultdict[int, set[nn.Module]](set)
        for module in model.modules():
            for p in module.parameters(recurse=False):
                owners[id(p)].add(module)
        covered = [name for name, p in wanted.items() if len(owners[id(p)]) == 1 and owners[id(p)] <= called_once]
        left = [name for name in wanted if name not in covered]
        if not covered:
            raise ValueError(
                f"EK-FAC covers none of the {len(wanted)} parameters, such as {left[0]!r}: only those of nn.Linear "
                "and nn.Conv2d (without groups) that are called once in a forward pass; use InfluenceFunctions, or "
                "choose others by grad_wrt"
            )
        if left:
            warnings.warn(
                f"EK-FAC leaves out {len(left)} of {len(wanted)} parameters, which are no weights or biases of an "
                "nn.Linear or nn.Conv2d that is called once in a forward pass: "
                f"{', '.join(left[:5])}{', ...' if len(left) > 5 else ''}",
                stacklevel=4,
            )
        return covered

    def blocks(self, loaded: LoadedCheckpoint) -> Iterator[tuple[int, int, Tensor]]:
        library, task = require_curvlinops(), loaded.task
        gradients = Gradients(loaded, self.engine, self.memory_budget)
        if isinstance(task, Classification):
            arguments: Any = logits_of(task), nn.CrossEntropyLoss()
        else:
            dtype = next(loaded.model.parameters()).dtype
            arguments = (
                lambda model, batch: task.output(model, batch)[:, None] / math.sqrt(2),  # its square is f²/2
                nn.MSELoss(),
                lambda count: torch.zeros(count, 1, dtype=dtype),
            )
        operator = make_operator(
            library.EKFACLinearOperator, loaded, *arguments, fisher_type=self.fisher, kfac_approx=self.sharing,
            seed=self.seed, separate_weight_and_bias=False, num_per_example_loss_terms=1,
        )  # fmt: skip
        with _hooks_as_found(loaded.model):
            mean_eigenvalue = float(operator.trace) / operator.shape[0]
        damping = RELATIVE_DAMPING * mean_eigenvalue if self.damping is None else self.damping
        inverse = library.KFACInverseLinearOperator(operator, damping=damping, use_exact_damping=True)

        def solve(columns: Tensor) -> Tensor:
            solution = (inverse @ columns.to(operator.dtype)).to(columns)
            if not torch.isfinite(solution).all():
                raise ValueError(f"the Hessian is singular with damping={damping:g}: use a positive one")
            return solution

        yield from influences(loaded, gradients, solve, self.memory_budget, _TARGETS_AT_ONCE)


@contextmanager
def _hooks_as_found(model: nn.Module) -> Iterator[None]:
    """Removes hooks set since, as curvlinops does not when it is interrupted."""
    found = [(module, [dict(hooks) for hooks in forward_hooks(module)]) for module in model.modules()]
    try:
        yield
    finally:
        for module, before in found:
            for hooks, kept in zip(forward_hooks(module), before, strict=True):
                for key in hooks.keys() - kept.keys():
                    del hooks[key]


def _called_once(model: nn.Module, task: Task, train: IndexedLoader) -> set[nn.Module]:
    """The layers that curvlinops has Kronecker factors for and that one forward pass calls once."""
    calls: Counter[nn.Module] = Counter()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and getattr(m, "groups", 1) == 1]
    handles = [layer.register_forward_hook(lambda module, *_: calls.update([module])) for layer in layers]
    try:
        with torch.no_grad(), differentiable(model, ()):
            task.output(model, next(iter(train))[1])
    finally:
        for handle in handles:
            handle.remove()
    return {module for module, times in calls.items() if times == 1}
