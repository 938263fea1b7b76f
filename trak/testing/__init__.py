"""Contracts that extensions must pass, as test classes to inherit; needs pytest.

A subclass says how its extension is made, and pytest runs the inherited tests. They compare with slow computations that
are right for every model: loops of `torch.autograd.grad` over single examples and float64 linear algebra, both in
`trak.testing.reference`::

    class TestMyProjector(trak.testing.ProjectorContract):
        def make(self, proj_dim, seed):
            return MyProjector(proj_dim, seed)
"""

from trak.testing import _pytest  # noqa: F401
from trak.testing.contracts import (
    BaselineContract,
    Curved,
    EngineContract,
    LayerRuleContract,
    ProjectorContract,
    TaskContract,
    assert_equals_loop,
    awkward_vectors,
)

__all__ = [
    "BaselineContract",
    "Curved",
    "EngineContract",
    "LayerRuleContract",
    "ProjectorContract",
    "TaskContract",
    "assert_equals_loop",
    "awkward_vectors",
]
