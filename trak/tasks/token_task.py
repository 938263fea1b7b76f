"""Base of the tasks that predict tokens, and classification of tokens."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.fields import IGNORED, LABEL_KEYS, find_key
from trak.inputs.model_calls import TupleLayouts, batch_as_dict, call_by_keyword
from trak.inputs.token_batches import check_text, ignore_empty_texts
from trak.tasks.classification import LAYOUTS
from trak.tasks.logits import check_classes, extract_logits, margins
from trak.tasks.multi_output import MultiOutputTask
from trak.tasks.registry import register_task


class TokenTask(MultiOutputTask):
    """A prediction for each position that has a label; -100 marks those without."""

    layouts: ClassVar[TupleLayouts]
    """The members of tuple batches, by their number."""

    @abstractmethod
    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The model's logits (B, L, classes) for a batch as `fields` gives it."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The batch as a dict, complete, its labels (B, L) under "labels"."""
        fields = self._as_dict(batch)
        labels = fields[find_key(fields, LABEL_KEYS, "labels")]
        if not isinstance(labels, Tensor) or labels.ndim != 2:
            got = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(
                f"{self._what} needs labels as a tensor of shape (B, length), got {got}; give one label for each token"
            )
        inputs = {key: value for key, value in fields.items() if key not in LABEL_KEYS}
        return {**inputs, "labels": ignore_empty_texts(labels, fields)}

    def align_labels(self, labels: Tensor) -> Tensor:
        """Move labels (B, L) to the positions of the logits that predict them."""
        return labels

    def prediction_mask(self, batch: Batch) -> Tensor:
        return self.align_labels(self.fields(batch)["labels"]) != IGNORED

    def margins(self, model: nn.Module, batch: Batch) -> Tensor:
        fields = self.fields(batch)
        labels, logits = self.align_labels(fields["labels"]), self.logits(model, fields)
        mask = labels != IGNORED
        try:
            # Before anything else, so that no more of a large vocabulary is held than has to be.
            logits, labels = logits[mask], labels[mask]
        except RuntimeError:  # torch.vmap has no shapes that depend on values
            return margins(logits, labels)
        found = margins(logits, labels)
        return found.new_zeros(mask.shape).index_put((mask,), found)

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        """Whether all labels are predicted right."""
        fields = self.fields(batch)
        labels = self.align_labels(fields["labels"])
        return ((self.logits(model, fields).argmax(-1) == labels) | (labels == IGNORED)).all(1)

    def token_targets(self, batch: Batch) -> dict[str, Any]:
        """One row for each label of a batch, in order, that label its only one: each token a target of its own.

        Score them as any batch of targets. With "cross_entropy" and "sum" a sequence's features, and
        scores, are the sums of its tokens'.
        """
        fields = self.fields(batch)
        labels = fields["labels"]
        rows, columns = (labels != IGNORED).nonzero(as_tuple=True)
        alone = torch.full_like(labels[rows], IGNORED)
        alone[torch.arange(len(rows), device=rows.device), columns] = labels[rows, columns]
        repeated: dict[str, Any] = batches.map_tensors(lambda t: t[rows] if t.ndim else t, fields)
        return {**repeated, "labels": alone}

    def check(self, model: nn.Module, batch: Batch) -> None:
        check_text(model, self._as_dict(batch))
        fields = self.fields(batch)
        labels = self.align_labels(fields["labels"])
        # Without the labels' values, which may be no tokens that a decoder could take.
        logits = self.logits(model, {**fields, "labels": fields["labels"].where(fields["labels"] == IGNORED, 0)})
        if logits.ndim != 3 or logits.shape[:2] != labels.shape:
            raise ValueError(
                f"{self._what} needs logits of shape (B, length, classes) for labels of shape {tuple(labels.shape)}, "
                f"got {tuple(logits.shape)}; let the model return such logits, or write a Task"
            )
        check_classes(labels, logits, IGNORED)
        without = (labels == IGNORED).all(1)
        if without.any():
            raise ValueError(
                f"row {batches.first_row(without)} of the batch has no token to predict: all of its labels are "
                f"{IGNORED}{self._missing_label_note}; leave it out"
            )

    def _as_dict(self, batch: Batch) -> dict[str, Any]:
        return batch_as_dict(batch, self.layouts, self._what)

    @property
    def _what(self) -> str:
        return (self.name or type(self).__name__).replace("_", " ")

    _missing_label_note: ClassVar[str] = ""


@register_task("token_classification")
class TokenClassification(TokenTask):
    """A class for each token, such as transformers' `AutoModelForTokenClassification`, or for masked ones
    (`AutoModelForMaskedLM`).

    Batches are as for `TextClassification`, with labels (B, L), -100 for tokens without.
    """

    layouts = LAYOUTS

    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return extract_logits(call_by_keyword(model, batch))
