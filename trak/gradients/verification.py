"""Whether an engine's gradients are autograd's."""

import logging
import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from trak.gradients.base import Engine, Sink
from trak.gradients.hooks import HooksEngine
from trak.gradients.loop import LoopEngine
from trak.gradients.mixed import MixedEngine
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.projectors import Accumulator, Sketch

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
_SKETCH = 2048
"""Numbers to which a parameter's gradient is reduced to be compared: its norm is then known to some percent."""
EXAMPLES = 16
"""How many tell whether they are mixed up."""
_MIXED_UP = 0.03
"""The relative difference from which on they are: rounding makes less."""

logger = logging.getLogger("trak")


class _Weighted(LoopEngine):
    """∇ Σ_i w_i f_i by autograd, given as the first example's gradient."""

    def __init__(self, engine: Engine, weights: Tensor) -> None:
        super().__init__(engine.model, engine.task, engine.parameters)
        self._weights = weights

    def gradients(self, batch: Batch, sink: Sink) -> Tensor:
        own = {name: p for name, p in self.model.named_parameters() if name in self.parameters}
        with torch.enable_grad():
            outputs = self.task.output(self.model, batch)
            total = (outputs * self._weights).sum()
            grads = torch.autograd.grad(total, list(own.values()), allow_unused=True) if total.requires_grad else ()
        for name, grad in zip(own, grads, strict=bool(grads)):
            if grad is not None:
                sink(name, (grad.to_dense() if grad.is_sparse else grad).unsqueeze(0), 0)
        return outputs.detach()


def misassigned(engine: Engine, batch: Batch, memory_budget: int, examples: int = EXAMPLES) -> list[str]:
    """The parameters whose gradients an engine gives to the wrong examples of a batch.

    So it is for a model that sorts its examples by length: what rules tell of two that were in order, they tell of the
    wrong ones if there are more. Σ_i w_i ∇f_i is compared with autograd's ∇ Σ_i w_i f_i, for w_i that all differ; what
    is not the same there is compared example by example.

    Args:
        engine: of which just `HooksEngine` is compared, since others go through the model an example at a time.
        batch: its first examples are compared.
        memory_budget: bytes that their activations may take.
        examples: how many, or as many as fit.
    """
    if isinstance(engine, MixedEngine):
        return [
            name for part in (engine.first, engine.second) for name in misassigned(part, batch, memory_budget, examples)
        ]
    if not isinstance(engine, HooksEngine):
        return []
    few = batches.take(batch, 0, min(examples, engine.examples_within(memory_budget, batch)))
    if batches.size(few) < 2:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, which were given before
            return _misplaced(engine, few)
    except torch.OutOfMemoryError:
        logger.info("engine %s: not compared with autograd on more than two examples, for want of memory", engine.name)
        return []


def _misplaced(engine: Engine, few: Batch) -> list[str]:
    count, device = batches.size(few), next(engine.model.parameters()).device
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0), device="cpu")
    # They add up to 0, so that what all gradients have in common hides nothing.
    weights = torch.linspace(-1, 1, count, device="cpu")[order].to(device)
    rows, plain = sketched(engine, few), sketched(_Weighted(engine, weights), few)
    wrong, sizes = {}, {}
    for name, own in rows.items():
        expected = plain[name][0]
        wrong[name] = float((weights.to(own.dtype) @ own - expected).norm())
        # What rounding is relative to, also where all gradients are the same.
        sizes[name] = float(expected.norm()) + float(own.sum(0).norm()) / math.sqrt(count)
    whole = math.hypot(*sizes.values())
    suspects = {name: rows[name] for name in rows if wrong[name] > _MIXED_UP * (sizes[name] + whole / 100)}
    if not suspects:
        return []
    truth = sketched(LoopEngine(engine.model, engine.task, tuple(suspects)), few)
    return disagreeing(suspects, truth, dict.fromkeys(suspects, _MIXED_UP))


def sketched(engine: Engine, batch: Batch) -> dict[str, Tensor]:
    """The gradients of a small batch by parameter, each reduced to a few numbers that tell how far apart two are:
    (B, numbers)."""
    own = dict(engine.model.named_parameters())
    sketch = Sketch(_SKETCH)
    sketch.bind({name: own[name].shape for name in engine.parameters})
    count = batches.size(batch)
    sums = {name: Accumulator(sketch, count, 0, own[name].device, own[name].dtype) for name in engine.parameters}
    engine.gradients(batch, lambda name, block, start: sums[name].add(name, block, start))
    return {name: total.result() for name, total in sums.items()}


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
