"""What data does a class, or another slice of targets, rest on?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trak._utils.plotting import STYLES, axes, legend
from trak.analysis.validation import Slice, chosen, listed, one_each, one_number, row_blocks, strongest
from trak.evaluation.plots import frame
from trak.evaluation.validation import Scores, as_scores

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class GroupAttribution:
    """The training examples behind the mean output of a slice of targets."""

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
        """The k training examples that push the slice up most, strongest first; int64 (k,)."""
        return strongest(self.mean, self.k)

    @property
    def harmful(self) -> Array:
        """The k training examples that push it down most, strongest first; int64 (k,)."""
        return strongest(self.mean, self.k, lowest=True)

    def shares(self) -> dict[str, Array]:
        """For each group of training examples, in the groups' order: `group`; `examples`, how many; `up`, its share of
        all that pushes the slice up (of the sum of positive means); `down`, of all that pushes it down; `net`, the sum
        of its means in units of f. A share is 0 where nothing pushes.

        Raises:
            ValueError: if no groups were given.
        """
        if self.groups is None:
            raise ValueError(
                f"the answer for {len(self.mean)} training examples has no groups; give rests_on groups, "
                "such as their labels"
            )
        names, of = np.unique(self.groups, return_inverse=True)
        up, down, net = (
            np.bincount(of, part, minlength=len(names)) for part in (self.mean.clip(0), (-self.mean).clip(0), self.mean)
        )
        return {
            "group": names,
            "examples": np.bincount(of),
            "up": up / (up.sum() or 1.0),
            "down": down / (down.sum() or 1.0),
            "net": net,
        }

    def __str__(self) -> str:
        line = f"{len(self.targets)} targets rest most on training examples " + listed(
            self.helpful[:_SHOWN], self.mean[self.helpful[:_SHOWN]]
        )
        if self.groups is not None:
            found = self.shares()
            parts = [f"{found['group'][i]} ({found['up'][i]:.0%})" for i in strongest(found["up"], _SHOWN)]
            line += "; what pushes them up comes from group " + ", ".join(parts)
        return line

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each of the k most helpful and then the k most harmful: side ("up" or "down"), rank (from 1),
        train_index, score, and group if there are groups.

        Raises:
            ImportError: if pandas is not installed.
        """
        indices = np.concatenate([self.helpful, self.harmful])
        columns = {
            "side": np.repeat(["up", "down"], self.k),
            "rank": np.tile(np.arange(1, self.k + 1), 2),
            "train_index": indices,
            "score": self.mean[indices],
        }
        return frame(columns if self.groups is None else columns | {"group": self.groups[indices]})

    def shares_frame(self) -> "pandas.DataFrame":
        """`shares` as a table.

        Raises:
            ValueError: if no groups were given.
            ImportError: if pandas is not installed.
        """
        return frame(self.shares())

    def plot(self, ax: Any = None) -> Any:
        """The groups' shares of what pushes up and of what pushes down, beside their shares of the training set;
        returns the axes.

        Raises:
            ValueError: if no groups were given.
            ImportError: if matplotlib is not installed.
        """
        found = self.shares()
        title = f"What {len(self.targets)} targets rest on"
        ax = axes(ax, "group of training examples", "share (%)", title)
        at = np.arange(len(found["group"]))
        dark, light = STYLES[0].color, STYLES[4].color
        ax.bar(at - 0.2, 100 * found["up"], 0.38, color=dark, edgecolor="black", label="of what pushes up")
        ax.bar(
            at + 0.2, 100 * found["down"], 0.38, color=light, edgecolor="black", hatch="//", label="of what pushes down"
        )
        size = 100 * found["examples"] / len(self.mean)
        ax.plot(
            at, size, "D", color="white", markeredgecolor="black", markersize=6, label="of the training examples"
        )  # fmt: skip
        ax.set_xticks(at, [str(name) for name in found["group"]])
        legend(ax)
        return ax


def group_attribution(
    scores: Scores, targets: Slice | None = None, *, groups: Any = None, k: int | None = None
) -> GroupAttribution:
    """Which training examples, and which groups of them, push a slice of targets up and down.

    Scores are read a block of rows at a time. The mean over the slice is what an example does to its mean output, so
    that targets with large scores count more.

    Args:
        scores: (n_train, n_targets), or anything with such `.scores`.
        targets: the slice: a mask (such as `target_labels == 3`) or indices; by default all.
        groups: label, source or the like of each training example, (n_train,).
        k: how many training examples at either end; by default 10, or n_train if that is less.

    Raises:
        ValueError: for an empty slice, targets that are not there, another number of groups than training examples, k
            out of range, or scores that are not finite.
        TypeError: for anything else.
    """
    scores = as_scores(scores)
    n, m = scores.shape
    columns = chosen(targets, m, "targets")
    k = one_number(min(10, n) if k is None else k, n)
    groups = None if groups is None else one_each(groups, n, "groups")
    mean = np.concatenate([block.mean(axis=1) for _, block in row_blocks(scores, columns)])
    return GroupAttribution(mean, columns, k, groups)
