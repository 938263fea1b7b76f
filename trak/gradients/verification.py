"""Comparison of an engine's gradients with those of plain autograd."""

import logging
import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from trak.gradients.base import Engine, GradientSink, MixedEngine
from trak.gradients.hooks import HooksEngine
from trak.gradients.loop import LoopEngine, send_gradients
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.projectors import Accumulator, Sketch

_SKETCH_DIM = 2048
"""Numbers to which a parameter's gradient is reduced to be compared: its norm is then known to some percent."""
_MISASSIGNED = 0.03
"""Relative difference above which gradients are misassigned; rounding causes less."""

logger = logging.getLogger("trak")


class _Weighted(LoopEngine):
    """∇ Σ_i w_i f_i by autograd, given as the first example's gradient."""

    def __init__(self, engine: Engine, weights: Tensor) -> None:
        super().__init__(engine.model, engine.task, engine.parameters)
        self._factors = weights

    def gradients(self, batch: Batch, sink: GradientSink) -> Tensor:
        with torch.enable_grad():
            outputs = self.task.output(self.model, batch)
            total = (outputs * self._factors).sum()
        send_gradients(total, self.named_weights(), sink, 0)
        return outputs.detach()


def misassigned(engine: Engine, batch: Batch, memory_budget: int, examples: int = 16) -> list[str]:
    """Return the parameters whose gradients an engine assigns to the wrong examples of a batch.

    This happens with models that sort their examples by length: rules that are right for two examples in order are
    wrong for more. Σ_i w_i ∇f_i is compared with autograd's ∇ Σ_i w_i f_i, for w_i that all differ; parameters that
    differ there are compared example by example. Just `HooksEngine` is compared, since other engines go through the
    model an example at a time, on the batch's first `examples`, or as many as fit in `memory_budget` bytes.
    """
    if isinstance(engine, MixedEngine):
        return [
            name for part in (engine.first, engine.second) for name in misassigned(part, batch, memory_budget, examples)
        ]
    if not isinstance(engine, HooksEngine):
        return []
    sample = batches.take(batch, 0, min(examples, engine.examples_within(memory_budget, batch)))
    if batches.size(sample) < 2:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, which were given before
            return _compare_weighted_sums(engine, sample)
    except torch.OutOfMemoryError:
        logger.info("engine %s: not compared with autograd on more than two examples: out of memory", engine.name)
        return []


def _compare_weighted_sums(engine: Engine, sample: Batch) -> list[str]:
    count, device = batches.size(sample), next(engine.model.parameters()).device
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0), device="cpu")
    # They add up to 0, so that what all gradients have in common hides nothing.
    weights = torch.linspace(-1, 1, count, device="cpu")[order].to(device)
    rows, plain = sketch_gradients(engine, sample), sketch_gradients(_Weighted(engine, weights), sample)
    wrong, sizes = {}, {}
    for name, own in rows.items():
        expected = plain[name][0]
        wrong[name] = float((weights.to(own.dtype) @ own - expected).norm())
        # What rounding is relative to, also where all gradients are the same.
        sizes[name] = float(expected.norm()) + float(own.sum(0).norm()) / math.sqrt(count)
    whole = math.hypot(*sizes.values())
    suspects = {name: rows[name] for name in rows if wrong[name] > _MISASSIGNED * (sizes[name] + whole / 100)}
    if not suspects:
        return []
    truth = sketch_gradients(LoopEngine(engine.model, engine.task, tuple(suspects)), sample)
    return disagreeing(suspects, truth, dict.fromkeys(suspects, _MISASSIGNED))


def sketch_gradients(engine: Engine, batch: Batch) -> dict[str, Tensor]:
    """Return a small batch's gradients by parameter, each sketched to `_SKETCH_DIM` numbers: (B, _SKETCH_DIM)."""
    weights, sketch, count = engine.named_weights(), Sketch(_SKETCH_DIM), batches.size(batch)
    sketch.bind({name: weight.shape for name, weight in weights.items()})
    sums = {name: Accumulator(sketch, count, 0, weight.device, weight.dtype) for name, weight in weights.items()}
    engine.gradients(batch, lambda name, block, start: sums[name].add(name, block, start))
    return {name: total.result() for name, total in sums.items()}


def tolerance(parameter: Tensor) -> float:
    """Return how far gradients may differ, relative to their norm, in a parameter's precision."""
    return {torch.float64: 1e-8, torch.float32: 1e-3}.get(parameter.dtype, 3e-2)


def disagreeing(found: Mapping[str, Tensor], truth: Mapping[str, Tensor], tolerances: Mapping[str, float]) -> list[str]:
    """Return the parameters whose gradients differ from the truth."""
    sizes = {name: float(expected.norm()) for name, expected in truth.items()}
    # A gradient that is zero but for rounding is compared with the whole gradient's norm.
    least = math.hypot(*sizes.values()) / 100
    errors = {name: float((g - truth[name]).norm()) for name, g in found.items()}
    return [name for name in found if not errors[name] <= tolerances[name] * (sizes[name] + least) + 1e-12]
