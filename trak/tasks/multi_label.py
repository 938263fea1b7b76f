"""Multi-label classification: a vector of binary labels."""

import torch
from torch import Tensor, nn

from trak.inputs.batches import Batch, first_row
from trak.inputs.fields import IGNORED
from trak.inputs.model_calls import read_labels
from trak.inputs.token_batches import check_text, is_text
from trak.tasks.logits import check_tensor, half_to_float32, logits_and_labels
from trak.tasks.multi_output import MultiOutputTask
from trak.tasks.registry import register_task


@register_task("multi_label")
class MultiLabel(MultiOutputTask):
    """A label in {0, 1} by each of C logits; the margin of one is its logit, negated where the label is 0.

    The mean of the binary cross-entropies is then softplus(-f), as with torch's `BCEWithLogitsLoss`.
    Batches are (inputs, labels) or a dict of both, for text with input_ids and what goes with them. Labels are
    (B, C), or (B,) for one logit, of any dtype, with -100 for one that is not known.
    """

    def margins(self, model: nn.Module, batch: Batch) -> Tensor:
        logits, labels = logits_and_labels(model, batch, "multi-label")
        logits = half_to_float32(logits).reshape(labels.shape)
        signed = logits.where(labels == 1, -logits)
        return signed.where((labels == 0) | (labels == 1), torch.nan).reshape(len(labels), -1)

    def prediction_mask(self, batch: Batch) -> Tensor:
        labels = read_labels(batch, "multi-label")
        return (labels != IGNORED).reshape(len(labels), -1)

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        """Whether all labels are predicted right."""
        return ((self.margins(model, batch) > 0) | ~self.prediction_mask(batch)).all(1)

    def check(self, model: nn.Module, batch: Batch) -> None:
        if is_text(batch):
            check_text(model, batch)
        logits, labels = logits_and_labels(model, batch, "multi-label")
        check_tensor(labels, "zeros and ones")
        one_each = labels.ndim > 0 and labels.numel() == logits.numel() == len(labels)
        if labels.shape != logits.shape and not one_each:
            raise ValueError(
                f"expected labels of the logits' shape {tuple(logits.shape)}, one in {{0, 1}} for each, got "
                f'{tuple(labels.shape)}; use task="text_classification" or '
                '"image_classification" for one class of several an example'
            )
        other = (labels != 0) & (labels != 1) & (labels != IGNORED)
        if other.any():
            raise ValueError(
                f"labels must be 0 or 1, or {IGNORED} if not known, got {labels[other][0].item():g} in row "
                f"{first_row(other)}; give labels of one of these"
            )
        without = ~self.prediction_mask(batch).any(1)
        if without.any():
            raise ValueError(f"row {first_row(without)} of the batch has no known label; leave it out")
