"""Which training examples are probably labelled wrong?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trak._utils.plotting import STYLES, axes
from trak._utils.typing import Array
from trak.evaluation.label_issue_scores import self_influence
from trak.evaluation.mislabel_metrics import check_issue_scores
from trak.evaluation.ranking import top_indices
from trak.evaluation.result import Result
from trak.evaluation.validation import Scores, as_scores, check_k, check_one_per_example, row_blocks

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class LabelIssues(Result):
    """Training examples to look at, the likeliest mislabelled first.

    The table has a row for each: train_index, issue_score, given_label, and suggested_label if there are suggestions.
    The figure shows the scores of all training examples, the highest first: where the curve levels off, looking costs
    more than it finds.
    """

    indices: Array
    """int64 (k,)."""
    given_labels: Array
    """Of these examples, (k,)."""
    suggested_labels: Array | None
    """The label whose training examples together decrease the output for the given label most, (k,), or the given one
    if none do; None without the scores that suggestions need."""
    issue_scores: Array
    """Of all training examples, higher for likelier mislabelled, float64 (n_train,)."""

    def __str__(self) -> str:
        suggested = self.given_labels if self.suggested_labels is None else self.suggested_labels
        parts = [
            f"#{i} (labelled {given}{f', perhaps {other}' * bool(other != given)})"
            for i, given, other in zip(self.indices[:_SHOWN].tolist(), self.given_labels, suggested, strict=False)
        ]
        more = f" and {len(self.indices) - _SHOWN} more" if len(self.indices) > _SHOWN else ""
        return (
            f"{len(self.indices)} likeliest label issues of {len(self.issue_scores)} training examples: "
            f"{', '.join(parts)}{more}"
        )

    def _columns(self) -> Mapping[str, Any]:
        scores = self.issue_scores[self.indices]
        columns = {"train_index": self.indices, "issue_score": scores, "given_label": self.given_labels}
        return columns if self.suggested_labels is None else columns | {"suggested_label": self.suggested_labels}

    def _draw(self, ax: Any) -> Any:
        n, k = len(self.issue_scores), len(self.indices)
        ax = axes(ax, "training examples, highest issue score first", "label issue score", "Label issues")
        ax.plot(np.arange(1, n + 1), np.sort(self.issue_scores)[::-1], color=STYLES[0].color, linewidth=2, label="all")
        look = {"color": STYLES[1].color, "markeredgecolor": "black", "markersize": 4, "label": f"the {k} to look at"}
        ax.plot(np.arange(1, k + 1), self.issue_scores[self.indices], STYLES[1].marker, **look)
        ax.set_xscale("log")
        return ax


def find_label_issues(
    source: Any,
    labels: Any,
    k: int | None = None,
    *,
    self_attribution: Scores | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> LabelIssues:
    """Rank training examples by their label issue scores, and suggest labels.

    An example that a model can only memorize is mislabelled, or unusual: look at it before you remove it.
    `trak.evaluation.mislabel_detection` measures how well scores do where the truth is known.

    Args:
        source: what `trak.attribute` returned, a `TRAKer` or a store, whose `self_influence` is the score; or any
            scores, (n_train,), higher for likelier mislabelled, such as `trak.evaluation.harm_scores`.
        labels: the given ones, (n_train,).
        k: how many examples; by default 20, or n_train if that is less.
        self_attribution: scores of the training set attributed to itself, (n_train, n_train), for suggestions: of the
            other labels the one whose training examples together decrease the example's output for its given label
            most, or the given one if none of them decreases it.
        device, progress: of `self_influence`.

    Raises:
        ValueError: for another number of labels, a k out of range, or scores of another shape or not finite.
        TypeError: if `source` neither has stored features nor is numeric.
    """
    given = isinstance(source, np.ndarray | torch.Tensor | list | tuple)
    scores = check_issue_scores(source) if given else self_influence(source, device=device, progress=progress)
    n = len(scores)
    labels, k = check_one_per_example(labels, n, "labels"), check_k(k, n, default=20)
    indices = top_indices(scores, k)
    suggested = None
    if self_attribution is not None:
        own = as_scores(self_attribution, "self_attribution")
        if own.shape != (n, n):
            raise ValueError(
                f"self_attribution must be scores of the training set for itself, of shape {(n, n)}, got {own.shape}; "
                "attribute with the training set as targets"
            )
        names, numbers = np.unique(labels, return_inverse=True)
        if len(names) < 2:
            raise ValueError(f"all labels are {names[0]}, and there is no other to suggest; leave self_attribution out")
        against, labelled = np.zeros((len(names), k)), numbers[indices]
        for start, block in row_blocks(own, indices):
            np.add.at(against, numbers[start : start + len(block)], (-block).clip(0))
        against[labelled, np.arange(k)] = 0.0
        suggested = names[np.where(against.max(axis=0) > 0, against.argmax(axis=0), labelled)]
    return LabelIssues(indices, labels[indices], suggested, scores)
