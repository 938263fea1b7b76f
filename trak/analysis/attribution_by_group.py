"""Which training examples, and which groups of them, support a class or another slice of targets?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trak._utils.plotting import STYLES, axes
from trak._utils.typing import Array
from trak._utils.validation import as_indices
from trak.evaluation.ranking import top_indices
from trak.evaluation.result import DataFrame, Result, format_examples, frame
from trak.evaluation.validation import Indices, Scores, as_scores, check_k, check_one_per_example, mean_over_targets


@dataclass(frozen=True, eq=False)
class GroupAttribution(Result):
    """The training examples behind the mean output of a slice of targets.

    The table has a row for each of the k most helpful and then the k most harmful: side ("up" or "down"), rank (from
    1), train_index, score, and group if there are groups. The figure, which needs groups, shows their shares of what
    increases and of what decreases the output, beside their shares of the training set.
    """

    mean: Array
    """Of each training example's scores over the slice, in units of f, float64 (n_train,)."""
    targets: Array
    """The slice, int64 (m,)."""
    k: int
    """How many training examples at either end are shown."""
    groups: Array | None = None
    """Of each training example, (n_train,)."""

    @property
    def helpful(self) -> Array:
        """The k training examples that increase the slice's output most, strongest first; int64 (k,)."""
        return top_indices(self.mean, self.k)

    @property
    def harmful(self) -> Array:
        """The k training examples that decrease the slice's output most, strongest first; int64 (k,)."""
        return top_indices(self.mean, self.k, lowest=True)

    def shares(self) -> dict[str, Array]:
        """For each group of training examples, in the groups' order: `group`; `examples`, how many; `up`, its share of
        the increase of the slice's output (of the sum of positive means); `down`, its share of the decrease; `net`, the
        sum of its means in units of f. A share is 0 where the sum is 0.

        Raises:
            ValueError: if no groups were given.
        """
        if self.groups is None:
            raise ValueError(
                f"the attribution to {len(self.mean)} training examples has no groups; give group_attribution "
                "groups, such as their labels"
            )
        names, of = np.unique(self.groups, return_inverse=True)
        up, down, net = (
            np.bincount(of, part, minlength=len(names)) for part in (self.mean.clip(0), (-self.mean).clip(0), self.mean)
        )
        up, down = up / (up.sum() or 1.0), down / (down.sum() or 1.0)
        return {"group": names, "examples": np.bincount(of), "up": up, "down": down, "net": net}

    def __str__(self) -> str:
        examples = format_examples(self.helpful, self.mean)
        line = f"{len(self.targets)} targets are supported most by training examples {examples}"
        if self.groups is not None:
            found = self.shares()
            parts = [f"{found['group'][i]} ({found['up'][i]:.0%})" for i in top_indices(found["up"], 3)]
            line += f"; the support comes from group {', '.join(parts)}"
        return line

    def _columns(self) -> Mapping[str, Any]:
        indices = np.concatenate([self.helpful, self.harmful])
        side, rank = np.repeat(["up", "down"], self.k), np.tile(np.arange(1, self.k + 1), 2)
        columns = {"side": side, "rank": rank, "train_index": indices, "score": self.mean[indices]}
        return columns if self.groups is None else columns | {"group": self.groups[indices]}

    def shares_frame(self) -> DataFrame:
        """`shares` as a table.

        Raises:
            ValueError: if no groups were given.
            ImportError: if pandas is not installed.
        """
        return frame(self.shares())

    def _draw(self, ax: Any) -> Any:
        found = self.shares()
        ax = axes(ax, "group of training examples", "share (%)", f"Support of {len(self.targets)} targets by group")
        at = np.arange(len(found["group"]))
        dark, light = STYLES[0].color, STYLES[4].color
        ax.bar(at - 0.2, 100 * found["up"], 0.38, color=dark, edgecolor="black", label="of the increase")
        ax.bar(at + 0.2, 100 * found["down"], 0.38, color=light, edgecolor="black", hatch="//", label="of the decrease")
        size = 100 * found["examples"] / len(self.mean)
        ax.plot(at, size, "D", color="white", markeredgecolor="black", markersize=6, label="of the training examples")
        ax.set_xticks(at, [str(name) for name in found["group"]])
        return ax


def group_attribution(
    scores: Scores, targets: Indices | None = None, *, groups: Any = None, k: int | None = None
) -> GroupAttribution:
    """Find which training examples, and which groups of them, increase or decrease the output of a slice of targets.

    Scores are read a block of rows at a time. The mean over the slice is what an example does to its mean output, so
    that targets with large scores count more.

    Args:
        scores: (n_train, n_targets), or anything with such `.scores`.
        targets: the slice: a mask (such as `target_labels == 3`) or indices; by default all.
        groups: label, source or the like of each training example, (n_train,).
        k: how many training examples at either end; by default 10, or n_train if that is less.

    Raises:
        ValueError: for an empty slice, targets out of range, another number of groups than training examples, k
            out of range, or scores that are not finite.
        TypeError: for anything else.
    """
    scores = as_scores(scores)
    n, m = scores.shape
    columns, k = as_indices(targets, m, "targets"), check_k(k, n)
    groups = None if groups is None else check_one_per_example(groups, n, "groups")
    return GroupAttribution(mean_over_targets(scores, columns), columns, k, groups)
