"""The base class of projectors, their registry, and the sum that gradients stream into."""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from trak._utils.registry import Registry
from trak.projectors.gradient_blocks import Block, OuterProducts, SparseRows

# A part is written and read again at once: large enough to make calls cheap, small enough to stay in the cache.
_PART_ELEMENTS = 1 << 21
_PART_ROWS = 16


def examples_per_block(elements: int, limit: int) -> int:
    """Return how many examples of this many elements fit within a limit: a power of two, so that parts begin alike."""
    return 1 << max(0, (limit // max(1, elements)).bit_length() - 1)


def check_size(value: int, name: str, usual: int) -> int:
    """The value as an int, if it is an integer of at least 1."""
    value = check_integer(value, name)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}; use {usual}, which is a good start")
    return value


def check_integer(value: int, name: str) -> int:
    """The value as an int, if it is an integer."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}; pass int({name})")
    return int(value)


@cache
def _kernels() -> ModuleType | None:
    try:
        from trak.projectors import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def kernels_for(block: Tensor) -> ModuleType | None:
    """`trak.projectors.triton_kernels` if it can take a block; plain torch gives the same numbers, slower."""
    return _kernels() if block.is_cuda else None


class Projector(ABC):
    """A linear map from gradients, given a parameter at a time, to `proj_dim` numbers.

    The contract, for any two gradients x and y of one checkpoint:
    E⟨Sx, Sy⟩ = ⟨x, y⟩ and Var⟨Sx, Sy⟩ ≤ (‖x‖²‖y‖² + ⟨x, y⟩²) / proj_dim, up to a factor
    1 + 1/64. The map depends on nothing but the seed, the checkpoint's id, the parameter's
    name and the coordinate within it.
    """

    name: ClassVar[str]
    """Recorded in the store as the kind of projector; `register_projector` sets it."""

    def __init__(self, proj_dim: int = 2048, seed: int = 0) -> None:
        """
        Args:
            proj_dim: number of features k, at least 1.
            seed: any integer; different seeds are independent projections.

        Raises:
            ValueError: if `proj_dim` is less than 1.
            TypeError: if `seed` or `proj_dim` is not an integer.
        """
        self.proj_dim, self.seed = check_size(proj_dim, "proj_dim", 2048), check_integer(seed, "seed")

    def bind(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Learn the parameters' names and shapes before the first projection."""

    def describe(self) -> dict[str, Any]:
        """Return the settings that determine the features, for the store's record."""
        return {"kind": getattr(self, "name", type(self).__name__), "seed": self.seed}

    def new_sum(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Any:
        """Return an empty sum for `batch_size` examples, in a layout of the projector's choice."""
        return torch.zeros(batch_size, self.proj_dim, device=device, dtype=dtype)

    @property
    def stride(self) -> int:
        """Number that the `first` coordinate of a block given to `add` is a multiple of."""
        return 1

    @abstractmethod
    def add(self, total: Any, name: str, block: Tensor, model_id: int, first: int = 0) -> None:
        """Add the projection of one parameter's gradients to `total`.

        Args:
            total: what `new_sum` returned, or some rows of it.
            name: the parameter.
            block: its gradients from coordinate `first` on, (b, width).
            model_id: id of the checkpoint.
            first: a multiple of `stride`.
        """

    def add_outer_products(self, total: Any, name: str, block: OuterProducts, model_id: int) -> None:
        """Add outer products to `total` as `add` does; by default formed densely, a few rows at a time."""
        rows, columns = block.left.shape[2], block.right.shape[2]
        together = self.stride // math.gcd(columns, self.stride)
        examples = examples_per_block(_PART_ROWS * columns, _PART_ELEMENTS)
        step = max(1, _PART_ELEMENTS // (min(examples, len(block)) * columns * together)) * together
        for start in range(0, len(block), examples):
            part, sums = block[start : start + examples], total[start : start + examples]
            for row in range(0, rows, step):
                self.add(sums, name, part.rows(row, row + step).flatten(1), model_id, row * columns)

    def add_sparse_rows(self, total: Any, name: str, block: SparseRows, model_id: int) -> None:
        """Add sparse rows to `total` as `add` does; by default made dense, one example at a time."""
        for i in range(len(block)):
            one = SparseRows(block.indices[i : i + 1], block.values[i : i + 1], block.rows)
            self.add(total[i : i + 1], name, one.dense().flatten(1), model_id)

    def finish(self, total: Any) -> Tensor:
        """Return the features, shape (B, proj_dim), of a sum to which every parameter was added."""
        return total

    def project(self, grads: Tensor | Mapping[str, Tensor], model_id: int = 0) -> Tensor:
        """Project whole gradients at once.

        Args:
            grads: one tensor (B, p), or a mapping from parameter name to a tensor `(B, *shape)`.
            model_id: id of the checkpoint they belong to.

        Returns:
            Features (B, proj_dim), float64 for float64 gradients and float32 otherwise.

        Raises:
            ValueError: if `grads` is empty or its members differ in their number of examples.
        """
        blocks = {"": grads} if isinstance(grads, Tensor) else dict(grads)
        if not blocks:
            raise ValueError("grads is empty: there is nothing to project; pass one gradient or more by parameter name")
        self.bind({name: block.shape[1:] for name, block in blocks.items()})
        first = next(iter(blocks.values()))
        for name, block in blocks.items():
            if block.shape[:1] != first.shape[:1]:
                raise ValueError(
                    f"gradients of {name!r} have shape {tuple(block.shape)}, expected {len(first)} examples first; "
                    "give a gradient for each example"
                )
        total = Accumulator(self, len(first), model_id, first.device, first.dtype)
        for name, block in blocks.items():
            total.add(name, block)
        return total.result()


PROJECTORS = Registry(Projector, "projector")
register_projector = PROJECTORS.register


class Accumulator:
    """The features of one batch, growing as its gradients arrive; float32 or better throughout."""

    def __init__(
        self, projector: Projector, batch_size: int, model_id: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.dtype = torch.float64 if dtype == torch.float64 else torch.float32
        # An integer of another type, such as NumPy's, must not name another random stream.
        self._projector, self._model_id, self._batch_size = projector, operator.index(model_id), batch_size
        self._total = projector.new_sum(batch_size, device, self.dtype)

    def add(self, name: str, block: Block, start: int = 0) -> None:
        """Add gradients of parameter `name`, of the examples from `start` on; a parameter's gradients may come in
        several parts, and those of one example add up.

        Raises:
            ValueError: if the block has no examples first, or more than there are.
        """
        if start + len(block) > self._batch_size:
            raise ValueError(
                f"gradients of {name!r} are of {len(block)} examples from example {start} on, expected "
                f"{self._batch_size} in all; add a gradient for each example"
            )
        total = self._total[start : start + len(block)]
        if isinstance(block, OuterProducts):
            self._projector.add_outer_products(total, name, block, self._model_id)
        elif isinstance(block, SparseRows):
            self._projector.add_sparse_rows(total, name, block, self._model_id)
        elif block.numel():
            self._projector.add(total, name, block.detach().reshape(len(block), -1).to(self.dtype), self._model_id)

    def result(self) -> Tensor:
        """Features (B, proj_dim)."""
        return self._projector.finish(self._total)
