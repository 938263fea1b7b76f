"""Random projections of per-example gradients."""

from trak._utils.messages import suggest
from trak.projectors.base import Accumulator, Projector, examples_together
from trak.projectors.buffers import scratch
from trak.projectors.compat_traker import (
    AbstractProjector,
    BasicProjector,
    BasicSingleBlockProjector,
    ChunkedCudaProjector,
    CudaProjector,
    NoOpProjector,
    ProjectionType,
)
from trak.projectors.dense import Gaussian, Rademacher
from trak.projectors.factored import Factored
from trak.projectors.gradient_blocks import Block, OuterProducts, SparseRows
from trak.projectors.identity import Identity
from trak.projectors.sketch import Sketch

PROJECTORS: dict[str, type[Projector]] = {c.kind: c for c in (Sketch, Factored, Rademacher, Gaussian, Identity)}


def make_projector(projector: Projector | str | None, proj_dim: int = 2048, seed: int = 0) -> Projector:
    """The projector meant by an instance, a name or None (the default, "sketch").

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else.
    """
    if isinstance(projector, Projector):
        return projector
    if projector is None:
        projector = Sketch.kind
    if not isinstance(projector, str):
        raise TypeError(
            f"projector must be a name or a trak.projectors.Projector, got {type(projector).__name__}; use "
            'projector="sketch", or make one, such as trak.projectors.Sketch(2048)'
        )
    if projector not in PROJECTORS:
        raise ValueError(f"unknown projector {projector!r}: {suggest(projector, PROJECTORS)}")
    return Identity(seed=seed) if projector == Identity.kind else PROJECTORS[projector](proj_dim, seed)


__all__ = [
    "PROJECTORS",
    "AbstractProjector",
    "Accumulator",
    "BasicProjector",
    "BasicSingleBlockProjector",
    "Block",
    "ChunkedCudaProjector",
    "CudaProjector",
    "Factored",
    "Gaussian",
    "Identity",
    "NoOpProjector",
    "OuterProducts",
    "ProjectionType",
    "Projector",
    "Rademacher",
    "Sketch",
    "SparseRows",
    "examples_together",
    "make_projector",
    "scratch",
]
