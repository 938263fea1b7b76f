"""Image classification by logits."""

from collections.abc import Mapping

from torch import Tensor, nn

from trak.inputs.batches import Batch, check_tuple
from trak.inputs.fields import INPUT_KEYS, LABEL_KEYS, find_key
from trak.inputs.model_calls import call_model
from trak.tasks.classification import Classification
from trak.tasks.logits import extract_logits
from trak.tasks.registry import register_task


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
