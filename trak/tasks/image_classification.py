"""Image classification by logits."""

from collections.abc import Mapping

from torch import Tensor, nn

from trak.inputs.batches import Batch, described
from trak.inputs.fields import INPUT_KEYS, LABEL_KEYS, find
from trak.inputs.model_calls import call_model
from trak.tasks.classification import Classification
from trak.tasks.logits import logits_of
from trak.tasks.registry import register_task


@register_task("image_classification")
@register_task("iterative_image_classification")  # the published name of the same
class ImageClassification(Classification):
    """The margin of the labelled class, for models that take a batch of images.

    Batches are (images, labels) or a dict with one of "pixel_values", "images", "image", "x",
    "inputs" and one of "labels", "label", "y", "target", "targets". The model returns logits
    (B, classes), or an object with `.logits`.
    """

    def logits_and_labels(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if isinstance(batch, Mapping):
            images = batch[find(batch, INPUT_KEYS, "images")]
            labels = batch[find(batch, LABEL_KEYS, "labels")]
        elif isinstance(batch, tuple | list) and len(batch) >= 2:
            images, labels = batch[0], batch[1]
        else:
            raise ValueError(
                f"a batch for image classification is (images, labels) or a dict of both, got {described(batch)}; "
                "yield such batches, or write a Task that reads yours"
            )
        return logits_of(call_model(model, images)), labels
