"""Sequence classification by logits."""

import inspect
from collections.abc import Mapping

from torch import Tensor, nn

from trak.batches import Batch
from trak.tasks.classification import Classification
from trak.tasks.logits import LABEL_KEYS, find, logits_of
from trak.tasks.registry import register_task

_TUPLES: dict[int, tuple[str, ...]] = {
    2: ("input_ids", "labels"),
    3: ("input_ids", "attention_mask", "labels"),
    4: ("input_ids", "token_type_ids", "attention_mask", "labels"),
}


@register_task("text_classification")
class TextClassification(Classification):
    """The margin of the labelled class, for models called by keyword.

    Batches are dicts or a Hugging Face BatchEncoding with the labels inside, or tuples
    (input_ids, [[token_type_ids,] attention_mask,] labels). Only inputs that the model's forward
    names are passed, as Hugging Face's Trainer does, and never the labels.
    """

    def logits_and_labels(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, Mapping):
            if not isinstance(batch, tuple | list) or len(batch) not in _TUPLES:
                raise ValueError(
                    "a batch for text classification is a dict, or a tuple (input_ids, labels), "
                    "(input_ids, attention_mask, labels) or (input_ids, token_type_ids, attention_mask, labels)"
                )
            batch = dict(zip(_TUPLES[len(batch)], batch, strict=True))
        label_key = find(batch, LABEL_KEYS, "labels")
        accepted = inspect.signature(model.forward).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
        inputs = {k: v for k, v in batch.items() if k not in LABEL_KEYS and (takes_any or k in accepted)}
        if not inputs:
            raise ValueError(
                f"none of the batch's inputs ({', '.join(batch)}) is an argument of {type(model).__name__}.forward "
                f"({', '.join(accepted)}); rename the batch's keys or write a Task"
            )
        return logits_of(model(**inputs)), batch[label_key]
