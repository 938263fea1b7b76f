"""Sequence to sequence: the tokens of an answer from an input and the tokens before them."""

from typing import Any, ClassVar

from torch import Tensor, nn

from trak.inputs.batches import Batch
from trak.inputs.model_calls import TupleLayouts, call_by_keyword
from trak.inputs.token_batches import move_padding_right
from trak.tasks.logits import extract_logits
from trak.tasks.registry import register_task
from trak.tasks.token_task import TokenTask


@register_task("seq2seq")
class Seq2Seq(TokenTask):
    """Pairs of input and answer by an encoder-decoder, such as transformers' `AutoModelForSeq2SeqLM`.

    Batches are dicts or a BatchEncoding with input_ids, attention_mask and labels (B, T), -100 where the
    answer has ended, or tuples (input_ids, [attention_mask,] labels). decoder_input_ids are
    made of the labels as in training, by the model's `prepare_decoder_input_ids_from_labels`, unless
    the batch has them. Padding in front of an input is moved behind it first.
    """

    layouts: ClassVar[TupleLayouts] = {2: ("input_ids", "labels"), 3: ("input_ids", "attention_mask", "labels")}

    def fields(self, batch: Batch) -> dict[str, Any]:
        fields = super().fields(batch)
        return move_padding_right(fields, "labels", *(key for key in fields if key.startswith("decoder_")))

    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return extract_logits(call_by_keyword(model, self._with_decoder_inputs(batch, model)))

    def token_targets(self, batch: Batch, model: nn.Module | None = None) -> dict[str, Any]:
        """As of `TokenTask`; the model makes the decoder's inputs, where the batch has none.

        Raises:
            ValueError: if it has none and no model is given.
        """
        fields = self.fields(batch)
        if model is not None:
            fields = self._with_decoder_inputs(fields, model)
        if "decoder_input_ids" not in fields:
            raise ValueError(
                f"token_targets needs decoder_input_ids, and the batch has only {', '.join(fields)}; add them, or "
                "pass the model that makes them"
            )
        return super().token_targets(fields)

    def _with_decoder_inputs(self, batch: dict[str, Any], model: Any) -> dict[str, Any]:
        if any(batch.get(key) is not None for key in ("decoder_input_ids", "decoder_inputs_embeds")):
            return batch
        try:
            made = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"{type(model).__name__} can't make decoder_input_ids of labels ({error}); put them into the batch: "
                "the labels moved right by one, behind the token that starts an answer"
            ) from error
        return {**batch, "decoder_input_ids": made}
