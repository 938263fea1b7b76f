"""Whether an engine's gradients are autograd's."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from trak import batches
from trak.batches import Batch
from trak.gradients.base import Engine
from trak.gradients.layered import Layers
from trak.gradients.mixed import Mixed
from trak.projectors import Block, OuterProducts, SparseRows

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
_EXAMPLES = 16
_SLACK = 3
"""For what is summed in another order."""


def mixed_up(engine: Engine, batch: Batch, memory_budget: int, tolerances: Mapping[str, float]) -> list[str]:
    """The parameters for which an engine's Σ_i w_i ∇f_i is not autograd's ∇ Σ_i w_i f_i, for w_i that all differ.

    So it is for a model that sorts the examples of a batch by length: what rules tell of two examples, that were in
    order, they tell of the wrong ones if there are more.

    Args:
        engine: of which just `Layers` is compared, since others go through the model an example at a time.
        batch: its first 16 examples are compared, or as many as fit.
        memory_budget: bytes that they may take.
        tolerances: relative, by parameter.
    """
    if isinstance(engine, Mixed):
        return [
            name for part in (engine.first, engine.second) for name in mixed_up(part, batch, memory_budget, tolerances)
        ]
    if not isinstance(engine, Layers) or batches.size(batch) < 2:
        return []
    batch = batches.take(batch, 0, min(_EXAMPLES, engine.examples_within(memory_budget, batch)))
    own = {name: p for name, p in engine.model.named_parameters() if name in engine.parameters}
    count, device = batches.size(batch), next(iter(own.values())).device
    # They add up to 0, so that what all gradients have in common hides nothing.
    weights = torch.linspace(-1, 1, count)[torch.randperm(count, generator=torch.Generator().manual_seed(0))].to(device)
    with torch.enable_grad():
        output = engine.task.output(engine.model, batch)
        if not output.requires_grad:
            return []
        plain = torch.autograd.grad((output * weights).sum(), list(own.values()), allow_unused=True)
    found = {name: torch.zeros_like(p, dtype=_wide(p)) for name, p in own.items()}
    sums = {name: torch.zeros_like(total) for name, total in found.items()}

    def sink(name: str, block: Block, start: int) -> None:
        _add(found[name], block, weights[start : start + len(block)])
        _add(sums[name], block, torch.ones_like(weights[: len(block)]))

    engine.gradients(batch, sink)
    wrong, sizes = {}, {}
    for (name, total), grad in zip(found.items(), plain, strict=True):
        expected = torch.zeros_like(total) if grad is None else (grad.to_dense() if grad.is_sparse else grad)
        wrong[name] = float((total - expected).norm())
        # What rounding is relative to, also where all gradients are the same.
        sizes[name] = float(expected.norm()) + float(sums[name].norm()) / count**0.5
    whole = math.hypot(*sizes.values())
    return [name for name in own if wrong[name] > _SLACK * tolerances[name] * (sizes[name] + whole / 100) + 1e-12]


def _wide(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _add(total: Tensor, block: Block, weights: Tensor) -> None:
    """Add the weighted sum of a block's examples."""
    weights = weights.to(total.dtype)
    if isinstance(block, OuterProducts):
        left = block.left * weights[:, None, None]
        total += (left.flatten(0, 1).T @ block.right.flatten(0, 1)).view_as(total)
    elif isinstance(block, SparseRows):
        values = (block.values * weights[:, None, None]).flatten(0, 1)
        total.index_add_(0, block.indices.flatten(), values.to(total.dtype))
    else:
        total += torch.tensordot(weights, block.to(total.dtype), 1)


def tolerance(parameter: Tensor) -> float:
    """How far gradients may be from each other, relative to their norm, in a parameter's precision."""
    return TOLERANCE.get(parameter.dtype, 3e-2)


def disagreeing(found: Mapping[str, Tensor], truth: Mapping[str, Tensor], tolerances: Mapping[str, float]) -> list[str]:
    """Of the parameters found, those that differ from the truth."""
    whole = float(torch.stack([expected.norm() for expected in truth.values()]).norm())
    return [name for name, g in found.items() if not _agree(g, truth[name], whole, tolerances[name])]


def _agree(found: Tensor, expected: Tensor, whole: float, tolerance: float) -> bool:
    """A gradient that is zero but for rounding is compared with the whole gradient's norm."""
    size = float(expected.norm()) + whole / 100
    return float((found - expected).norm()) <= tolerance * size + 1e-12
