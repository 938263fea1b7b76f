"""What the tasks that predict tokens share."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.fields import IGNORED, LABEL_KEYS, find
from trak.inputs.model_calls import Layouts, as_mapping, check_text, without_empty
from trak.tasks.logits import check_classes, margins
from trak.tasks.multi_output import MultiOutputTask


class TokenTask(MultiOutputTask):
    """A prediction for each position that has a label; -100 marks those without."""

    layouts: ClassVar[Layouts]
    """The members of tuple batches, by their number."""

    @abstractmethod
    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        """The model's logits (B, L, classes) for a batch as `fields` gives it."""

    def fields(self, batch: Batch) -> dict[str, Any]:
        """The batch as a dict, complete, its labels (B, L) under "labels".

        Raises:
            ValueError: if it has no such form.
        """
        fields = as_mapping(batch, self.layouts, self._what)
        labels = fields[find(fields, LABEL_KEYS, "labels")]
        if not isinstance(labels, Tensor) or labels.ndim != 2:
            got = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(
                f"{self._what} needs labels as a tensor of shape (B, length), got {got}; give one label for each token"
            )
        inputs = {key: value for key, value in fields.items() if key not in LABEL_KEYS}
        return {**inputs, "labels": without_empty(labels, fields)}

    def aligned(self, labels: Tensor) -> Tensor:
        """The labels, (B, L), each where the logits are that predict it."""
        return labels

    def counted(self, batch: Batch) -> Tensor:
        return self.aligned(self.fields(batch)["labels"]) != IGNORED

    def margins(self, model: nn.Module, batch: Batch) -> Tensor:
        fields = self.fields(batch)
        labels, logits = self.aligned(fields["labels"]), self.logits(model, fields)
        counted = labels != IGNORED
        try:
            # Before anything else, so that no more of a large vocabulary is held than has to be.
            logits, labels = logits[counted], labels[counted]
        except RuntimeError:  # torch.vmap has no shapes that depend on values
            return margins(logits, labels)
        found = margins(logits, labels)
        return found.new_zeros(counted.shape).index_put((counted,), found)

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        """Whether all labels are predicted right."""
        fields = self.fields(batch)
        labels = self.aligned(fields["labels"])
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
        check_text(model, as_mapping(batch, self.layouts, self._what))
        fields = self.fields(batch)
        labels = self.aligned(fields["labels"])
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
                f"row {int(without.nonzero()[0])} of the batch has no token to predict: all of its labels are "
                f"{IGNORED}{self._no_label}; leave it out"
            )

    @property
    def _what(self) -> str:
        return (self.name or type(self).__name__).replace("_", " ")

    _no_label: ClassVar[str] = ""
