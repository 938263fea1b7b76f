"""What do two models learn differently from the same data?"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from trak._utils.plotting import STYLES, axes, legend
from trak._utils.typing import Array
from trak.evaluation.rank_agreement import Agreement, agreement
from trak.evaluation.ranking import top_indices
from trak.evaluation.result import REFERENCE, Result, format_examples
from trak.evaluation.validation import Scores, as_scores, check_k, check_target, row_blocks


@dataclass(frozen=True, eq=False)
class Comparison(Result):
    """Two attributions of the same targets to the same training examples, in units that can be compared.

    Scores of different models are not comparable, so each target's scores are first divided by their root mean square
    over training examples (zeros stay). The table has a row for each training example, those that differ most first:
    train_index, difference, shift; see `agreement.to_frame()` for a table of targets. The figure is each training
    example's normalized score by a and by b for one target.
    """

    agreement: Agreement
    """Of each target's scores: rank correlation, and overlap of the k highest."""
    shift: Array
    """Mean over targets of b less a, (n_train,): positive where the example counts more for b."""
    difference: Array
    """Root mean square over targets of b less a, (n_train,)."""
    names: tuple[str, str]
    _scaled: tuple[tuple[Array, Array], tuple[Array, Array]]
    """Scores of a and of b, each with the root mean squares of their columns."""

    def targets(self) -> Array:
        """All targets, those whose rankings differ most first; int64 (n_targets,)."""
        return top_indices(self.agreement.correlations, lowest=True)

    def examples(self) -> Array:
        """All training examples, those that differ most over all targets first; int64 (n_train,)."""
        return top_indices(self.difference)

    def normalized_scores(self, target: int) -> Array:
        """Normalized scores of one target by a and by b, float64 (n_train, 2).

        Raises:
            ValueError, TypeError: if there is no such target.
        """
        target = check_target(target, len(self.agreement.correlations))
        columns = [np.asarray(scores[:, target], np.float64) / scale[target] for scores, scale in self._scaled]
        return np.stack(columns, axis=1)

    def __str__(self) -> str:
        targets = format_examples(self.targets(), self.agreement.correlations, ".2f")
        return (
            f"{self.names[0]} and {self.names[1]}: {self.agreement}; rankings differ most for targets {targets}; "
            f"{self.names[1]} less {self.names[0]} differs most for training examples "
            f"{format_examples(self.examples(), self.shift, '+.2f')}"
        )

    def _columns(self) -> Mapping[str, Any]:
        order = self.examples()
        return {"train_index": order, "difference": self.difference[order], "shift": self.shift[order]}

    def plot(self, ax: Any = None, target: int | None = None, k: int = 5) -> Any:
        """Draw each training example's normalized score by a and by b for one target; returns the axes. The k that
        differ most are marked and numbered.

        Args:
            ax: matplotlib axes to draw on; by default those of a new figure.
            target: which; by default the one whose rankings differ most.
            k: how many training examples to number.

        Raises:
            ValueError, TypeError: for an invalid target or k.
            ImportError: if matplotlib is not installed.
        """
        ax = self._draw(ax, target, k)
        legend(ax)
        return ax

    def _draw(self, ax: Any, target: int | None = None, k: int = 5) -> Any:
        target = int(self.targets()[0]) if target is None else target
        k = check_k(k, len(self.shift))
        points = self.normalized_scores(target)
        x, y = (f"score by {name} (root mean square 1)" for name in self.names)
        ax = axes(ax, x, y, f"Target {target}: Spearman {self.agreement.correlations[target]:.2f}")
        marked = top_indices(np.abs(points[:, 1] - points[:, 0]), k)
        ax.plot(*points.T, ".", color="#808080", markersize=4, label="training example")
        marker, color = STYLES[1].marker, STYLES[1].color
        ax.plot(*points[marked].T, marker, color=color, markeredgecolor="black", markersize=6, label="differs most")
        for above, i in zip(cycle((True, False)), np.sort(marked).tolist(), strict=False):
            ax.annotate(f"#{i}", points[i], xytext=(6, 5 if above else -9), textcoords="offset points", fontsize=8)
        ends = [points.min(), points.max()]
        ax.plot(ends, ends, **REFERENCE, label="the same in both")
        return ax


def compare_attributions(
    a: Scores, b: Scores, k: int | None = None, *, names: tuple[str, str] = ("a", "b"), seed: int = 0
) -> Comparison:
    """Compare what two models learn from the same training examples for the same targets.

    Two trainings of one model differ, too: compare a with another seed of a first, and call different only what
    differs more.

    Args:
        a, b: scores (n_train, n_targets), or anything with such `.scores`, in the same order of examples and targets.
        k: how many of the highest scores to compare; by default 10, or n_train if that is less.
        names: what to call the two.
        seed: of the bootstrap of the agreement's intervals.

    Raises:
        ValueError: for shapes that differ, scores that are not finite, k out of range, or another number of names.
        ImportError: if scipy is not installed.
    """
    if not isinstance(names, tuple | list) or len(names) != 2:
        raise ValueError(f"names must be two, got {names!r}; give one for a and one for b")
    found = agreement(a, b, k, seed=seed)
    first, second = as_scores(a, "a"), as_scores(b, "b")
    scale, second_scale = _scale(first), _scale(second)
    shift, difference = np.empty((2, len(first)))
    for (start, one), (_, other) in zip(row_blocks(first), row_blocks(second), strict=True):
        rows, change = slice(start, start + len(one)), other / second_scale - one / scale
        shift[rows], difference[rows] = change.mean(axis=1), np.sqrt((change**2).mean(axis=1))
    scaled = (first, scale), (second, second_scale)
    return Comparison(found, shift, difference, (str(names[0]), str(names[1])), scaled)


def _scale(scores: Array) -> Array:
    """Root mean square of each column, 1 for zeros: float64 (n_targets,)."""
    highest = np.zeros(scores.shape[1])
    for _, block in row_blocks(scores):
        highest = np.maximum(highest, np.abs(block).max(axis=0))
    highest[highest == 0] = 1.0
    # Divided first, so that squares of tiny or huge scores stay in range.
    squares = sum(((block / highest) ** 2).sum(axis=0) for _, block in row_blocks(scores))
    scale = highest * np.sqrt(squares / len(scores))
    return np.where(scale > 0, scale, 1.0)
