"""Per-example gradients by plain autograd, one example at a time: exact for every model."""

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
        own = dict(self.model.named_parameters())
        weights = [own[name] for name in self.parameters]
        outputs, connected = [], False
        for i in range(batches.size(batch)):
            with torch.enable_grad():
                output = check_output(self.task, self.task.output(self.model, batches.take(batch, i, i + 1)), 1)
                # Here too, since the caller may have turned gradients off.
                grads = torch.autograd.grad(output[0], weights, allow_unused=True) if output.requires_grad else ()
            for name, grad in zip(self.parameters, grads, strict=bool(grads)):
                if grad is not None:
                    connected = True
                    sink(name, (grad.to_dense() if grad.is_sparse else grad).unsqueeze(0), i)
            outputs.append(output[0].detach())
        if not connected:
            raise not_connected(self)
        return torch.stack(outputs)

    def examples_within(self, memory_budget: int, batch: Batch) -> int:
        return 1


def not_connected(engine: Engine) -> ValueError:
    """Return the error of a task whose output depends on no parameter."""
    return ValueError(
        f"{type(engine.task).__name__}.output depends on none of the parameters that are differentiated by "
        f"({shorten_names(engine.parameters)}); remove torch.no_grad and detach from the model and the task, or name "
        "parameters in grad_wrt that are used"
    )
