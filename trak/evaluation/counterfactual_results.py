"""Brittleness: what becomes of targets when training examples are removed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trak._utils.plotting import CHANCE, CROWDED, axes, styles
from trak._utils.typing import Array
from trak._utils.validation import check_option
from trak.evaluation.result import Result, draw_curve, frame, with_interval
from trak.evaluation.statistics import Bootstrap, Interval, interval_label

if TYPE_CHECKING:
    import pandas

RANDOM_REMOVAL = "random"
"""Name of the removal of random examples among the methods."""


@dataclass(frozen=True, eq=False)
class Counterfactuals(Result):
    """What becomes of targets when their top-k training examples are removed, and k random ones.

    The table has a row for each method and k: method, k, drop, drop_low, drop_high, and flipped, flipped_low,
    flipped_high if the task tells right from wrong. The figure shows brittleness curves.
    """

    methods: tuple[str, ...]
    """The last is "random"."""
    k: tuple[int, ...]
    """Numbers of training examples removed."""
    targets: Array
    """Which targets these are, int64 (n_targets,)."""
    drops: Array
    """By how much the mean output of models trained on everything exceeds that of models trained without the k
    examples, in units of f, float64 (methods, k, n_targets). For random removal the mean over random sets."""
    flips: Array | None
    """Whether a prediction that was right is wrong then, 0 or 1 (between for random removal: the share of random sets),
    NaN for a target that was wrong before: float64 of the same shape. None if the task does not tell."""
    drop_intervals: Array
    """Of the mean drop over targets, (methods, k, 2)."""
    flip_intervals: Array | None
    """Of the share of right targets that flip, (methods, k, 2)."""
    confidence: float
    seeds: int

    @property
    def mean_drops(self) -> Array:
        """Over targets, (methods, k)."""
        return self.drops.mean(axis=-1)

    @property
    def flip_shares(self) -> Array | None:
        """Share of the targets predicted right before that are wrong then, (methods, k); NaN if none was right."""
        if self.flips is None:
            return None
        known = flips_of_correct(self.flips)
        return known.mean(axis=-1) if known.size else np.full(known.shape[:-1], np.nan)

    def __str__(self) -> str:
        parts, shares = [], self.flip_shares
        for i, method in enumerate(self.methods):
            flips = "" if shares is None else f", {shares[i, -1]:.0%} flip"
            interval = Interval(*self.drop_intervals[i, -1].tolist())
            parts.append(f"{method} {self.mean_drops[i, -1]:.3f} ({interval}){flips}")
        return (
            f"Drop of the output without the top {self.k[-1]} (mean of {len(self.targets)} targets, {self.seeds} "
            f"seeds, {interval_label(self.confidence)}): " + "; ".join(parts)
        )

    def _columns(self) -> Mapping[str, Any]:
        columns = {
            "method": np.repeat(self.methods, len(self.k)),
            "k": np.tile(self.k, len(self.methods)),
            **with_interval("drop", self.mean_drops, self.drop_intervals),
        }
        if self.flip_shares is not None and self.flip_intervals is not None:
            columns |= with_interval("flipped", self.flip_shares, self.flip_intervals)
        return columns

    def paired_differences(self, method: str) -> "pandas.DataFrame":
        """By how much a method's drops exceed each other method's on the same targets: a row for each other method and
        k, with columns other, k, difference (mean over targets, in units of f), difference_low, difference_high.

        Targets differ more than methods do, so the interval of the difference is narrower than those of the drops.

        Raises:
            ValueError: for an unknown method.
            ImportError: if pandas is not installed.
        """
        check_option(method, "method", self.methods)
        others = [i for i, other in enumerate(self.methods) if other != method]
        differences = self.drops[self.methods.index(method)] - self.drops[others]
        intervals = Bootstrap(confidence=self.confidence).mean_intervals(differences)
        return frame(
            {
                "other": np.repeat([self.methods[i] for i in others], len(self.k)),
                "k": np.tile(self.k, len(others)),
                **with_interval("difference", differences.mean(axis=-1), intervals),
            }
        )

    def plot(self, ax: Any = None, what: str | None = None) -> Any:
        """Draw "flips" or "drops" by the number of examples removed; returns the axes.

        Args:
            ax: matplotlib axes to draw on; by default those of a new figure.
            what: "flips", the default if the task tells right from wrong, or "drops".

        Raises:
            ValueError: for something else, or flips that are not known.
            ImportError: if matplotlib is not installed.
        """
        if what == "drops":
            return replace(self, flips=None, flip_intervals=None).plot(ax)
        if what not in (None, "flips") or (what and self.flips is None):
            raise ValueError(
                f"what must be 'drops', or 'flips' if the task tells right from wrong, got {what!r}; use one of them"
            )
        return super().plot(ax)

    def _draw(self, ax: Any) -> Any:
        if self.flips is None:
            ylabel, title = "drop of the target's output f (units of f)", "Counterfactual effect"
            values, intervals = self.mean_drops, self.drop_intervals
        else:
            ylabel, title = "right predictions that flip (%)", "Brittleness"
            values, intervals = 100 * np.asarray(self.flip_shares), 100 * np.asarray(self.flip_intervals)
        ax = axes(ax, "training examples removed (k)", ylabel, f"{title}, {interval_label(self.confidence)}s")
        crowded = len(self.methods) > CROWDED
        for i, (method, style) in enumerate(zip(self.methods, styles(), strict=False)):
            # Bars of neighbours beside each other.
            x = np.array(self.k) + 0.01 * self.k[-1] * (i - len(self.methods) // 2) * crowded
            style = CHANCE if method == RANDOM_REMOVAL else style
            draw_curve(ax, x, values[i], intervals[i], method, style, bars=crowded)
        ax.axhline(0, color="black", linewidth=0.8)
        return ax


def flips_of_correct(flips: Array) -> Array:
    """The flips of the targets that were predicted right before."""
    return flips[..., ~np.isnan(flips[0, 0])]
