"""Several engines for one model."""

from torch import Tensor

from trak.gradients.base import Engine, GradientSink
from trak.inputs.batches import Batch


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
