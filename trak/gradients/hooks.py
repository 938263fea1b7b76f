"""Per-example gradients from one batched forward and backward pass, captured operation by operation."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from trak._utils.torch_private import compiler_is_loaded
from trak.gradients.base import Engine, GradientSink, check_output, register_engine
from trak.gradients.layers import Capture, UnsupportedParameterError, stepwise_recurrence
from trak.gradients.parameters import differentiable
from trak.inputs import batches
from trak.inputs.batches import Batch


@register_engine("hooks")
class HooksEngine(Engine):
    """One forward and one backward pass for the batch; see `trak.gradients.layers.Capture`."""

    _capture: Callable[..., Capture] = Capture

    def gradients(self, batch: Batch, sink: GradientSink) -> Tensor:
        """
        Raises:
            UnsupportedParameterError: if a parameter is used in a way that no rule covers.
        """
        # New objects, so that what the capture notes on them does not reach the caller's.
        batch = batches.take(batch, 0, batches.size(batch))
        capture = self._capture(self.named_weights(), batches.tensors(batch), batches.size(batch), sink)
        # Parameters of other engines would keep autograd from going through the operations that are watched.
        alone = differentiable(self.model, self.parameters)
        rules, stepwise = capture.layer_rules(self.model), stepwise_recurrence(self.model, capture)
        # Compiled code does not tell what it does.
        eager = partial(torch.compiler.set_stance, "force_eager") if compiler_is_loaded() else nullcontext
        with torch.enable_grad(), eager(), alone, rules, stepwise, capture:
            outputs = check_output(self.task, self.task.output(self.model, batch), batches.size(batch))
            uncovered = capture.backward(outputs)
        if uncovered:
            raise UnsupportedParameterError(uncovered)
        return outputs.detach()

    def examples_within(self, memory_budget: int, batch: Batch) -> int:
        # Each activation is kept for the backward pass and meets its own gradient there.
        return max(1, memory_budget // max(1, 3 * self.activation_bytes(batch)))
