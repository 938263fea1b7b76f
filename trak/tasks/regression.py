"""Regression under squared error."""

from torch import Tensor, nn

from trak.inputs.batches import Batch
from trak.inputs.token_batches import check_text, is_text
from trak.tasks.base import Task
from trak.tasks.logits import logits_and_labels
from trak.tasks.registry import register_task


@register_task("regression")
class Regression(Task):
    """f is the residual ŷ - y, the loss f²/2, so Q = y - ŷ and R = 1.

    The residual's gradient is the prediction's, so a positive score says: training on this example
    pushed the prediction up. Batches are (inputs, y) or a dict of both, for text with input_ids and
    what goes with them; targets without a known y may carry zeros. The model returns one number per example.
    """

    output_description = "prediction − label: up means a higher prediction, not a better one"

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        prediction, y = logits_and_labels(model, batch, "regression")
        return prediction.reshape(-1) - y.reshape(-1)

    def loss(self, output: Tensor) -> Tensor:
        return output.square() / 2

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        return None

    def check(self, model: nn.Module, batch: Batch) -> None:
        if is_text(batch):
            check_text(model, batch)
        prediction, y = logits_and_labels(model, batch, "regression")
        for what, value in (("prediction", prediction), ("y", y)):
            if value.ndim == 0 or value.numel() != len(value):
                raise ValueError(
                    f"regression needs one number per example, got {what} of shape {tuple(value.shape)}; write a Task "
                    "that says which one is meant of several outputs"
                )
        if len(prediction) != len(y):
            raise ValueError(
                f"the model gave {len(prediction)} predictions for {len(y)} values of y; give one for each"
            )
