"""Which training examples are probably labelled wrong?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trak._utils.plotting import STYLES, axes, legend
from trak._utils.validation import as_array
from trak.analysis.validation import one_each, one_number, row_blocks, strongest
from trak.evaluation.plots import frame
from trak.evaluation.self_influence import self_influence
from trak.evaluation.validation import Scores, as_scores, finite

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Training examples to look at, the most suspicious first."""

    indices: Array
    """int64 (k,)."""
    labels: Array
    """As given, (k,)."""
    suggested: Array | None
    """The label whose training examples push most against the given one, (k,), or that itself if none do; None if
    nobody could say."""
    suspicion: Array
    """Of all training examples, float64 (n_train,)."""

    def __str__(self) -> str:
        n, parts = len(self.suspicion), []
        for rank, i in enumerate(self.indices[:_SHOWN].tolist()):
            other = self.labels[rank] if self.suggested is None else self.suggested[rank]
            perhaps = "" if other == self.labels[rank] else f", perhaps {other}"
            parts.append(f"#{i} (labelled {self.labels[rank]}{perhaps})")
        more = f" and {len(self.indices) - _SHOWN} more" if len(self.indices) > _SHOWN else ""
        return f"{len(self.indices)} most suspicious of {n} training examples: {', '.join(parts)}{more}"

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each suspect: train_index, suspicion, label, and suggested if there are suggestions.

        Raises:
            ImportError: if pandas is not installed.
        """
        columns = {"train_index": self.indices, "suspicion": self.suspicion[self.indices], "label": self.labels}
        return frame(columns if self.suggested is None else columns | {"suggested": self.suggested})

    def plot(self, ax: Any = None) -> Any:
        """The suspicion of all training examples, the most suspicious first: where it levels off, looking costs more
        than it finds. Returns the axes.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        n, k = len(self.suspicion), len(self.indices)
        ax = axes(ax, "training examples, most suspicious first", "suspicion", "Suspected labels")
        ax.plot(np.arange(1, n + 1), np.sort(self.suspicion)[::-1], color=STYLES[0].color, linewidth=2, label="all")
        ax.plot(
            np.arange(1, k + 1), self.suspicion[self.indices], STYLES[1].marker, color=STYLES[1].color,
            markeredgecolor="black", markersize=4, label=f"the {k} to look at",
        )  # fmt: skip
        ax.set_xscale("log")
        legend(ax)
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
    """Rank training examples by suspicion, with the label that others suggest.

    An example that a model can only learn by heart is labelled wrong, or unusual: look at it before it goes.
    `trak.evaluation.mislabel_detection` measures how well a suspicion does where the truth is known.

    Args:
        source: what `trak.attribute` returned, a `TRAKer` or a store, whose `self_influence` is the suspicion; or any
            suspicion, (n_train,), higher for likelier mislabelled, such as `trak.evaluation.harmfulness`.
        labels: the given ones, (n_train,).
        k: how many suspects; by default 20, or n_train if that is less.
        to_itself: scores of the training set attributed to itself, (n_train, n_train), for suggestions: of the other
            labels the one whose training examples together push the suspect's output for its given label down most,
            or the given one if none of them pushes it down.
        device, progress: of `self_influence`.

    Raises:
        ValueError: for another number of labels, a k out of range, scores of another shape, or suspicion that is not
            finite.
        TypeError: if `source` has no stored features and is no suspicion.
    """
    if isinstance(source, np.ndarray | torch.Tensor | list | tuple):
        given = as_array(source)
        if given.dtype.kind not in "fiub":
            raise TypeError(f"suspicion must be real numbers, got an array of {given.dtype}; convert them to floats")
        suspicion = finite(given, "suspicion")
        if not suspicion.size:
            raise ValueError("suspicion is empty: give one number for each training example")
        if suspicion.ndim != 1:
            raise ValueError(
                f"suspicion must have one number for each training example, got shape {suspicion.shape}; of scores, "
                "make one by trak.evaluation.harmfulness"
            )
    else:
        suspicion = self_influence(source, device=device, progress=progress)
    n = len(suspicion)
    labels = one_each(labels, n, "labels")
    k = one_number(min(20, n) if k is None else k, n)
    indices = strongest(suspicion, k)
    suggested = (
        None if self_attribution is None else _suggested(as_scores(self_attribution, "to_itself"), indices, labels)
    )
    return LabelIssues(indices, labels[indices], suggested, suspicion)


def _suggested(scores: Array, suspects: Array, labels: Array) -> Array:
    n = len(labels)
    if scores.shape != (n, n):
        raise ValueError(
            f"to_itself must be scores of the training set for itself, of shape {(n, n)}, got {scores.shape}; "
            "attribute with the training set as targets"
        )
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all labels are {names[0]}, and there is no other to suggest; leave to_itself out")
    against = np.zeros((len(names), len(suspects)))
    for start, block in row_blocks(scores, suspects):
        np.add.at(against, numbers[start : start + len(block)], (-block).clip(0))
    given = numbers[suspects], np.arange(len(suspects))
    against[given] = 0.0
    return names[np.where(against.max(axis=0) > 0, against.argmax(axis=0), given[0])]
