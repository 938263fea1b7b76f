"""Classification by logits: of inputs of any kind, of images and of texts."""

from collections.abc import Mapping

from torch import Tensor, nn

from trak._utils.validation import is_number
from trak.inputs.batches import Batch, check_tuple
from trak.inputs.fields import INPUT_KEYS, LABEL_KEYS, find_key
from trak.inputs.model_calls import TupleLayouts, batch_as_dict, call_by_keyword, call_model
from trak.inputs.token_batches import check_text, ignore_empty_texts
from trak.tasks.base import Task
from trak.tasks.logits import check_labels, extract_logits, margins
from trak.tasks.registry import register_task

LAYOUTS: TupleLayouts = {
    2: ("input_ids", "labels"),
    3: ("input_ids", "attention_mask", "labels"),
    4: ("input_ids", "token_type_ids", "attention_mask", "labels"),
}


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


@register_task("image_classification")
@register_task("iterative_image_classification")  # its name in traker 0.3.2
class ImageClassification(Classification):
    """The margin of the labelled class, for models that take a batch of images.

    Batches are (images, labels) or a dict with one of "pixel_values", "images", "image", "x",
    "inputs" and one of "labels", "label", "y", "target", "targets". The model returns logits
    (B, classes), or an object with `.logits`.
    """

    def logits_and_labels(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if isinstance(batch, Mapping):
            images = batch[find_key(batch, INPUT_KEYS, "images")]
            labels = batch[find_key(batch, LABEL_KEYS, "labels")]
        else:
            images, labels, *_ = check_tuple(batch, "image classification", "(images, labels)")
        return extract_logits(call_model(model, images)), labels


@register_task("text_classification")
class TextClassification(Classification):
    """The margin of the labelled class, for models called by keyword: classifiers of sequences, and of choices
    (inputs (B, choices, L), logits (B, choices)).

    Batches are dicts or a Hugging Face BatchEncoding with the labels inside, or tuples
    (input_ids, [[token_type_ids,] attention_mask,] labels). Only inputs that the model's forward
    names are passed, as Hugging Face's Trainer does, and never the labels.
    """

    def logits_and_labels(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return super().logits_and_labels(model, batch_as_dict(batch, LAYOUTS, "text classification"))

    def check(self, model: nn.Module, batch: Batch) -> None:
        super().check(model, batch_as_dict(batch, LAYOUTS, "text classification"))
