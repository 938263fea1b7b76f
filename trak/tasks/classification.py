"""Classification by logits, of inputs of any kind."""

from collections.abc import Mapping

from torch import Tensor, nn

from trak._utils.validation import is_number
from trak.inputs.batches import Batch, check_tuple
from trak.inputs.fields import LABEL_KEYS, find_key
from trak.inputs.model_calls import call_by_keyword, call_model
from trak.inputs.token_batches import check_text, ignore_empty_texts
from trak.tasks.base import Task
from trak.tasks.logits import check_labels, extract_logits, margins
from trak.tasks.registry import register_task


@register_task("classification")
class Classification(Task):
    """f is the margin log(p / (1 - p)) of the labelled class (TRAK, section 3.3), for models with any inputs: tables,
    time series, several things at once.

    Batches are tuples (inputs ..., labels), whose inputs the model gets in order, or dicts with one of "labels",
    "label", "label_ids", "y", "target", "targets", of which the model gets what its forward names, and never the
    labels. The model returns logits (B, classes), or an object with `.logits`.
    """

    output_description = "log-odds of the labelled class, log(p / (1 − p))"

    def __init__(self, temperature: float = 1.0) -> None:
        """
        Args:
            temperature: the logits are divided by it, in the output and in the loss alike.

        Raises:
            ValueError: if it is not positive.
        """
        if not is_number(temperature) or not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature!r}; use 1 for none")
        self.temperature = float(temperature)

    def logits_and_labels(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The model's logits (B, classes) and the labels (B,) of a batch.

        Raises:
            ValueError: for a batch without inputs or labels.
            TypeError: if the model's forward needs other inputs, or returns no logits.
        """
        if isinstance(batch, Mapping):
            labels = batch[find_key(batch, LABEL_KEYS, "labels")]
            logits = extract_logits(call_by_keyword(model, batch))
            return logits, ignore_empty_texts(labels, batch) if isinstance(labels, Tensor) else labels
        *inputs, labels = check_tuple(batch, "classification", "(inputs ..., labels)")
        return extract_logits(call_model(model, *inputs)), labels

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        logits, labels = self.logits_and_labels(model, batch)
        return margins(logits / self.temperature, labels)

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        logits, labels = self.logits_and_labels(model, batch)
        return logits.argmax(-1) == labels

    def check(self, model: nn.Module, batch: Batch) -> None:
        if isinstance(batch, Mapping):
            check_text(model, batch)
        check_labels(*self.logits_and_labels(model, batch))
