"""Finds the kernels for a GPU, where there are both."""

from functools import cache
from types import ModuleType

from torch import Tensor


@cache
def _installed() -> ModuleType | None:
    try:
        from trak.projectors import triton_kernels as kernels
    except ImportError:
        return None
    return kernels


def kernels_for(block: Tensor) -> ModuleType | None:
    """`trak.projectors.triton_kernels` if it can take a block; plain torch gives the same numbers, slower."""
    return _installed() if block.is_cuda else None
