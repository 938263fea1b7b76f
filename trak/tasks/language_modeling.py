"""Language modeling: each token from those before it."""

from typing import Any, ClassVar

from torch import Tensor, nn

from trak.inputs.batches import Batch
from trak.inputs.fields import IGNORED, LABEL_KEYS
from trak.inputs.model_calls import TupleLayouts, accepts_keyword, call_by_keyword
from trak.inputs.token_batches import move_padding_right
from trak.tasks.logits import extract_logits
from trak.tasks.registry import register_task
from trak.tasks.token_task import TokenTask


@register_task("language_modeling")
class LanguageModeling(TokenTask):
    """Sequences by a model that predicts each token from those before it, such as transformers' `AutoModelForCausalLM`.

    Batches are dicts or a BatchEncoding with input_ids (B, L), attention_mask and labels (-100: not
    predicted), or tuples (input_ids[, attention_mask[, labels]]). Labels are not shifted; without any, every
    token under the mask is one. Several documents packed in one row are one example. A model
    whose forward knows no input_ids gets them alone, as its first argument.

    Padding in front of a sequence is moved behind it first, so that absolute positions count from its
    first token whatever its padding, as they do where text is generated; a GPT-2 trained on rows padded
    in front without position_ids saw other positions.
    """

    layouts: ClassVar[TupleLayouts] = {
        1: ("input_ids",),
        2: ("input_ids", "attention_mask"),
        3: ("input_ids", "attention_mask", "labels"),
    }
    _missing_label_note: ClassVar[str] = " beyond the first position"

    def fields(self, batch: Batch) -> dict[str, Any]:
        fields = self._as_dict(batch)
        if all(fields.get(key) is None for key in LABEL_KEYS):
            if not isinstance(fields.get("input_ids"), Tensor):
                raise ValueError(
                    f"the batch has neither input_ids nor labels, got {', '.join(fields) or 'nothing'}; add input_ids"
                )
            mask = fields.get("attention_mask")
            labels = fields["input_ids"].long()
            usable = isinstance(mask, Tensor) and mask.shape == labels.shape
            fields["labels"] = labels.masked_fill(mask != 1, IGNORED) if usable else labels
        fields = move_padding_right(super().fields(fields))
        # The first token is not predicted.
        labels = fields["labels"].clone()
        labels[:, :1] = IGNORED
        return {**fields, "labels": labels}

    def align_labels(self, labels: Tensor) -> Tensor:
        return labels.roll(-1, 1)

    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        if accepts_keyword(model, "input_ids") or "input_ids" not in batch:
            return extract_logits(call_by_keyword(model, batch))
        return extract_logits(model(batch["input_ids"]))
