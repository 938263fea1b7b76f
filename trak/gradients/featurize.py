"""From a batch to the rows that are stored: gradients into a projection, in pieces that fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trak._utils.validation import is_integer
from trak.gradients.base import Engine
from trak.gradients.loop import LoopEngine
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.fsdp import is_sharded, to_local
from trak.projectors import Accumulator, Block, Projector

MEMORY_BUDGET = 2 * 2**30


def check_memory_budget(memory_budget: int) -> int:
    """The number of bytes.

    Raises:
        ValueError: if it is no positive integer.
    """
    if not is_integer(memory_budget, 1):
        raise ValueError(
            f"memory_budget must be a positive integer, in bytes, got {memory_budget!r}; use 1 << 30 for a GiB"
        )
    return memory_budget


@dataclass(frozen=True)
class ProjectedRows:
    """What is stored of B examples."""

    features: Tensor
    """Projected gradients of f, (B, k)."""
    output: Tensor
    """f, (B,)."""
    out_to_loss_grad: Tensor
    """Q = -dℓ/df, (B,)."""
    out_to_loss_curvature: Tensor
    """R = d²ℓ/df², (B,)."""


def featurize(
    engine: Engine,
    projector: Projector,
    batch: Batch,
    model_id: int,
    memory_budget: int,
    dtype: torch.dtype = torch.float32,
    loss_temperature: float = 1.0,
) -> ProjectedRows:
    """The rows of a batch in `dtype`, at most as many examples at once as fit in `memory_budget` bytes; Q and R as of
    `Task.weights_at_temperature`."""
    parameter = next(engine.model.parameters())
    count = batches.size(batch)
    step = min(count, engine.examples_within(memory_budget, batch))
    pieces: list[tuple[Tensor, Tensor]] = []
    for number in range(engine.rounds(-(-count // step))):
        start = number * step
        if start >= count:
            engine.gradients(batches.take(batch, 0, step), lambda name, block, first: None)
            continue
        piece = batches.take(batch, start, start + step)
        total = Accumulator(projector, batches.size(piece), model_id, parameter.device, parameter.dtype)
        outputs = engine.gradients(piece, total.add)
        pieces.append((total.result(), outputs.to(total.dtype)))
    features, output = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    q, r = engine.task.weights_at_temperature(engine.model, batch, output, loss_temperature)
    return ProjectedRows(*(t.to(dtype) for t in (features, output, q, r)))


def check_finite(rows: ProjectedRows, engine: Engine, batch: Batch, indices: Sequence[int], where: str) -> None:
    """Stop on NaN and infinity, saying where they came from.

    Args:
        rows: what was computed.
        engine, batch: what it was computed by and from.
        indices: the examples' indices in their data set.
        where: the checkpoint, in words.

    Raises:
        ValueError: naming the example, the parameter and the checkpoint, if any number is not finite.
    """
    bad = ~torch.isfinite(rows.features.sum(dim=1))
    if bad.any():  # or finite numbers with an infinite sum
        bad = ~torch.isfinite(rows.features).all(dim=1)
    for column in (rows.output, rows.out_to_loss_grad, rows.out_to_loss_curvature):
        bad |= ~torch.isfinite(column)
    if not bad.any():
        return
    model = engine.model
    row = int(bad.nonzero()[0])
    for name, weight in model.named_parameters():
        if not torch.isfinite(to_local(weight)).all():
            raise ValueError(f"{where} holds NaN or infinity in {name!r}; attribute a checkpoint that trained without")
    example = f"example {indices[row]} (row {row} of its batch), {where}"
    for position, t in enumerate(batches.tensors(batch)):
        if not torch.isfinite(t[row]).all():
            raise ValueError(
                f"{example}: input {position} of the batch holds NaN or infinity; clean or drop the example"
            )
    for name, buffer in model.named_buffers():
        if buffer.isnan().any():
            raise ValueError(f"{where} holds NaN in {name!r}; attribute a checkpoint that trained without")
    output = f"its output f is {float(rows.output[row]):.4g}"
    what, hint, broken = "its gradient, output or loss is", "", list[str]()

    def note_if_broken(name: str, block: Block, _: int) -> None:
        assert isinstance(block, Tensor)
        if not torch.isfinite(block).all():
            broken.append(name)

    if not is_sharded(model):  # of which nothing more can be known without the other ranks
        engine.task.check(model, batch)
        single = batches.take(batch, row, row + 1)
        LoopEngine(model, engine.task, engine.parameters).gradients(single, note_if_broken)
        what = f"the gradient of {broken[-1]!r} is" if broken else "its output or loss is"
        hint = " and the model computes it in float32"
    raise ValueError(
        f"{example}: {what} not finite; {output}; look whether the example is sound{hint}, or leave it out"
    )
