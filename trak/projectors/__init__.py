"""Random projections of per-example gradients."""

from trak.projectors.base import PROJECTORS, Accumulator, Projector, examples_per_block, register_projector
from trak.projectors.compat_traker import (
    AbstractProjector,
    BasicProjector,
    BasicSingleBlockProjector,
    ChunkedCudaProjector,
    CudaProjector,
    NoOpProjector,
    ProjectionType,
)
from trak.projectors.dense import Gaussian, Identity, Rademacher
from trak.projectors.factored import Factored
from trak.projectors.gradient_blocks import Block, OuterProducts, SparseRows, reusable_buffer
from trak.projectors.sketch import Sketch


def make_projector(projector: Projector | str | None, proj_dim: int = 2048, seed: int = 0) -> Projector:
    """Return a projector from an instance, a name or None (the default, "sketch").

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else.
    """
    if isinstance(projector, Projector):
        return projector
    if projector is None:
        projector = Sketch.name
    if not isinstance(projector, str):
        raise TypeError(
            f"projector must be a name or a trak.projectors.Projector, got {type(projector).__name__}; use "
            'projector="sketch", or make one, such as trak.projectors.Sketch(2048)'
        )
    cls = PROJECTORS.find(projector)
    made: Projector = Identity(seed) if cls is Identity else cls(proj_dim, seed)
    return made


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
    "examples_per_block",
    "make_projector",
    "register_projector",
    "reusable_buffer",
]
