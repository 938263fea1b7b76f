"""Per-example gradients by torch.func: vmap over grad."""

from typing import Any

import torch
from torch import Tensor, nn

from trak._utils.messages import first_line
from trak.gradients.base import Engine, GradientSink, check_output, register_engine
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.tasks import Task


class _TaskOutput(nn.Module):
    """The task's output as a module, so that functional_call can swap the model's parameters."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self._task = model, task

    def forward(self, batch: Batch) -> Tensor:
        return check_output(self._task, self._task.output(self.model, batch), 1)[0]


@register_engine("functional")
class FunctionalEngine(Engine):
    """vmap(grad) over the batch: every model that torch.vmap accepts."""

    def gradients(self, batch: Batch, sink: GradientSink) -> Tensor:
        """
        Raises:
            ValueError: if torch.vmap does not accept the model.
        """
        if batches.has_plain_fields(batch):
            raise NotImplementedError("a batch with fields that are not tensors")
        module = _TaskOutput(self.model, self.task)
        weights = {f"model.{name}": weight.detach() for name, weight in self.named_weights().items()}

        def output(weights: dict[str, Tensor], example: list[Tensor]) -> Tensor:
            single = batches.replace_tensors(batch, [t.unsqueeze(0) for t in example])
            return torch.func.functional_call(module, weights, (single,))

        per_example: Any = torch.func.vmap(torch.func.grad_and_value(output), in_dims=(None, 0), randomness="different")
        try:
            with torch.no_grad():
                grads, outputs = per_example(weights, batches.tensors(batch))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"engine='functional' can't run {type(self.model).__name__} under torch.vmap "
                f"({first_line(error)}); use engine='auto'"
            ) from error
        for name in self.parameters:
            sink(name, grads.pop(f"model.{name}"), 0)
        return outputs

    def examples_within(self, memory_budget: int, batch: Batch) -> int:
        gradient_bytes = sum(weight.nbytes for weight in self.named_weights().values())
        # Each gradient exists once as vmap returns it and up to once more while it is formed;
        # each activation is kept for the backward pass and meets its own gradient there.
        return max(1, memory_budget // max(1, 2 * gradient_bytes + 3 * self.activation_bytes(batch)))
