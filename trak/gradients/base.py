"""What a gradient engine promises."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from trak.batches import Batch
from trak.tasks import Task

Sink = Callable[[str, Tensor], None]


class Engine(ABC):
    """Per-example gradients of a task's output, handed on a parameter at a time.

    The contract: the numbers of a loop of `torch.autograd.grad` over single examples, to 1e-5
    relative in float32 and 1e-10 in float64. The model is in evaluation mode, and of its
    parameters just those named require gradients, whenever an engine runs.
    """

    name: ClassVar[str]

    def __init__(self, model: nn.Module, task: Task, parameters: Sequence[str]) -> None:
        """
        Args:
            model: the model, its checkpoint loaded.
            task: says which output is differentiated.
            parameters: names, as in `model.named_parameters()`, of what to differentiate by.
        """
        self.model, self.task, self.parameters = model, task, tuple(parameters)

    @abstractmethod
    def gradients(self, batch: Batch, sink: Sink) -> Tensor:
        """Call `sink(name, block)` for each parameter, block of shape (B, *parameter.shape).

        Returns:
            The outputs f, shape (B,), detached.
        """

    @abstractmethod
    def examples_within(self, memory_budget: int, batch: Batch) -> int:
        """How many examples like those of `batch` fit in `memory_budget` bytes at once, at least 1."""


def check_output(task: Task, output: Tensor, batch_size: int) -> Tensor:
    """The output, if it has shape (B,).

    Raises:
        TypeError: otherwise.
    """
    if not isinstance(output, Tensor) or output.shape != (batch_size,):
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(
            f"{type(task).__name__}.output must return one number per example, shape ({batch_size},), got {got}"
        )
    return output
