"""Classification of texts by logits."""

from torch import Tensor, nn

from trak.inputs.batches import Batch
from trak.inputs.model_calls import TupleLayouts, batch_as_dict
from trak.tasks.classification import Classification
from trak.tasks.registry import register_task

LAYOUTS: TupleLayouts = {
    2: ("input_ids", "labels"),
    3: ("input_ids", "attention_mask", "labels"),
    4: ("input_ids", "token_type_ids", "attention_mask", "labels"),
}


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
