"""Per-example gradients by plain autograd, one example at a time: exact for every model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trak._utils.messages import shorten_names
from trak.gradients.base import Engine, GradientSink, check_output, register_engine
from trak.inputs import batches
from trak.inputs.batches import Batch


@register_engine("loop")
class LoopEngine(Engine):
    """A loop of `torch.autograd.grad`; the reference that other engines are compared with."""

    def gradients(self, batch: Batch, sink: GradientSink) -> Tensor:
        weights, outputs, connected = self.named_weights(), [], False
        for i in range(batches.size(batch)):
            with torch.enable_grad():
                output = check_output(self.task, self.task.output(self.model, batches.take(batch, i, i + 1)), 1)[0]
            connected |= send_gradients(output, weights, sink, i)
            outputs.append(output.detach())
        if not connected:
            raise not_connected(self)
        return torch.stack(outputs)

    def examples_within(self, memory_budget: int, batch: Batch) -> int:
        return 1


def send_gradients(output: Tensor, weights: Mapping[str, Tensor], sink: GradientSink, example: int) -> bool:
    """Give a sink the gradients of a scalar as those of one example; return whether it depends on any weight."""
    connected = False
    if output.requires_grad:
        with torch.enable_grad():  # the caller may have turned gradients off
            grads = torch.autograd.grad(output, list(weights.values()), allow_unused=True)
        for name, grad in zip(weights, grads, strict=True):
            if grad is not None:
                connected = True
                sink(name, (grad.to_dense() if grad.is_sparse else grad).unsqueeze(0), example)
    return connected


def not_connected(engine: Engine) -> ValueError:
    """Return the error of a task whose output depends on no parameter."""
    return ValueError(
        f"{type(engine.task).__name__}.output depends on none of the parameters that are differentiated by "
        f"({shorten_names(engine.parameters)}); remove torch.no_grad and detach from the model and the task, or name "
        "parameters in grad_wrt that are used"
    )
