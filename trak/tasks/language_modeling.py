"""Language modeling: each token from those before it."""

from typing import Any, ClassVar

from torch import Tensor, nn

from trak.inputs.batches import Batch
from trak.inputs.fields import IGNORED, LABEL_KEYS
from trak.inputs.model_calls import Layouts, as_mapping, call_by_keyword, right_padded, takes
from trak.tasks.logits import logits_of
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

    layouts: ClassVar[Layouts] = {
        1: ("input_ids",),
        2: ("input_ids", "attention_mask"),
        3: ("input_ids", "attention_mask", "labels"),
    }
    _no_label: ClassVar[str] = " beyond the first position"

    def fields(self, batch: Batch) -> dict[str, Any]:
        fields = as_mapping(batch, self.layouts, self._what)
        if all(fields.get(key) is None for key in LABEL_KEYS):
            if not isinstance(fields.get("input_ids"), Tensor):
                raise ValueError(
                    f"the batch has neither input_ids nor labels, got {', '.join(fields) or 'nothing'}; add input_ids"
                )
            mask = fields.get("attention_mask")
            labels = fields["input_ids"].long()
            usable = isinstance(mask, Tensor) and mask.shape == labels.shape
            fields["labels"] = labels.masked_fill(mask != 1, IGNORED) if usable else labels
        fields = right_padded(super().fields(fields))
        # What no token comes before is not predicted.
        labels = fields["labels"].clone()
        labels[:, :1] = IGNORED
        return {**fields, "labels": labels}

    def aligned(self, labels: Tensor) -> Tensor:
        return labels.roll(-1, 1)

    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        if takes(model, "input_ids") or "input_ids" not in batch:
            return logits_of(call_by_keyword(model, batch))
        return logits_of(model(batch["input_ids"]))
