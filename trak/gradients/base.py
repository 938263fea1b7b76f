"""What a gradient engine promises."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from trak._utils.registry import Registry
from trak._utils.torch_private import storage_key
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.projectors import Block
from trak.tasks import Task

GradientSink = Callable[[str, Block, int], None]
"""Takes the name of a parameter, the gradients of several examples, and the first example's position."""


class Engine(ABC):
    """Per-example gradients of a task's output, handed on a parameter at a time.

    The contract: the numbers of a loop of `torch.autograd.grad` over single examples, to 1e-5
    relative in float32 and 1e-10 in float64. The model is in evaluation mode, and of its
    parameters just those named require gradients, whenever an engine runs.
    """

    name: ClassVar[str]
    """What users choose it by; `register_engine` sets it."""

    def __init__(self, model: nn.Module, task: Task, parameters: Sequence[str]) -> None:
        """
        Args:
            model: the model, its checkpoint loaded.
            task: says which output is differentiated.
            parameters: names, as in `model.named_parameters()`, of what to differentiate by.
        """
        self.model, self.task, self.parameters = model, task, tuple(parameters)
        self._activation_bytes: dict[tuple[torch.Size, ...], int] = {}

    def named_weights(self) -> dict[str, Tensor]:
        """Return the model's tensors of `parameters`, in their order."""
        own = dict(self.model.named_parameters())
        return {name: own[name] for name in self.parameters}

    @abstractmethod
    def gradients(self, batch: Batch, sink: GradientSink) -> Tensor:
        """Call `sink(name, block, start)` with the gradients of the examples from `start` on, a block of shape
        `(b, *parameter.shape)`, until every example of every parameter came; what comes several times adds up,
        what doesn't come is zero.

        Returns:
            The outputs f, shape (B,), detached.
        """

    @abstractmethod
    def examples_within(self, memory_budget: int, batch: Batch) -> int:
        """How many examples like those of `batch` fit in `memory_budget` bytes at once, at least 1."""

    def activation_bytes(self, batch: Batch) -> int:
        """Bytes that autograd keeps of one example's forward pass, parameters aside; measured once for each shape."""
        shapes = example_shapes(batch)
        if shapes not in self._activation_bytes:
            self._activation_bytes[shapes] = self._measure(batch)
        return self._activation_bytes[shapes]

    def rounds(self, pieces: int) -> int:
        """How often `gradients` has to be called for a batch of so many pieces, for nothing but the other ranks after
        the last."""
        return pieces

    def _measure(self, batch: Batch) -> int:
        weights, seen = self._weight_storages(), dict[int, int]()

        def pack(saved: Tensor) -> Tensor:
            storage = saved.untyped_storage()
            if storage_key(storage) not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return saved

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            # Copied, since a view would be taken for as large as the whole batch.
            self.task.output(self.model, batches.map_tensors(torch.clone, batches.take(batch, 0, 1)))
        return sum(seen.values())

    def _weight_storages(self) -> Collection[int]:
        return {storage_key(p.untyped_storage()) for p in self.model.parameters()}


class MixedEngine(Engine):
    """Some parameters by one engine, the others by another."""

    name = "mixed"

    def __init__(self, first: Engine, second: Engine) -> None:
        super().__init__(first.model, first.task, (*first.parameters, *second.parameters))
        self.first, self.second = first, second

    def gradients(self, batch: Batch, sink: GradientSink) -> Tensor:
        outputs = self.first.gradients(batch, sink)
        self.second.gradients(batch, sink)
        return outputs

    def examples_within(self, memory_budget: int, batch: Batch) -> int:
        return min(engine.examples_within(memory_budget, batch) for engine in (self.first, self.second))


ENGINES = Registry(Engine, "engine")
register_engine = ENGINES.register


def example_shapes(batch: Batch) -> tuple[torch.Size, ...]:
    """Return the shapes of one example's tensors."""
    return tuple(t.shape[1:] for t in batches.tensors(batch))


def check_output(task: Task, output: Tensor, batch_size: int) -> Tensor:
    """Return the output, or raise a TypeError unless it has shape (B,)."""
    if not isinstance(output, Tensor) or output.shape != (batch_size,):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(
            f"{type(task).__name__}.output must return one number per example, shape ({batch_size},), got {got}; "
            "return a tensor of that shape, such as the sum over what else there is"
        )
    return output


def collect(engine: Engine, batch: Batch) -> dict[str, Tensor]:
    """The gradients as dense tensors `(B, *shape)` by parameter; for small models."""
    found = {}
    for name, p in engine.named_weights().items():
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        found[name] = torch.zeros(batches.size(batch), *p.shape, dtype=dtype, device=p.device)

    def sink(name: str, block: Block, start: int) -> None:
        found[name][start : start + len(block)] += block if isinstance(block, Tensor) else block.dense()

    engine.gradients(batch, sink)
    return found
