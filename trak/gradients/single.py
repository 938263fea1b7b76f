"""Per-example gradients by plain autograd, one example at a time: exact for every model."""

import torch
from torch import Tensor

from trak import batches
from trak.batches import Batch
from trak.gradients.base import Engine, Sink, check_output


class Single(Engine):
    """A loop of `torch.autograd.grad`; the truth that other engines are checked against."""

    name = "single"

    def gradients(self, batch: Batch, sink: Sink) -> Tensor:
        own = dict(self.model.named_parameters())
        weights = [own[name] for name in self.parameters]
        outputs = []
        for i in range(batches.size(batch)):
            with torch.enable_grad():
                output = check_output(self.task, self.task.output(self.model, batches.take(batch, i, i + 1)), 1)
            if output.requires_grad:
                grads = torch.autograd.grad(output[0], weights, materialize_grads=True)
            else:
                grads = tuple(torch.zeros_like(w) for w in weights)
            for name, grad in zip(self.parameters, grads, strict=True):
                sink(name, grad.unsqueeze(0), i)
            outputs.append(output[0].detach())
        return torch.stack(outputs)

    def examples_within(self, memory_budget: int, batch: Batch) -> int:
        return 1
