"""Brittleness: what becomes of targets when training examples are taken away."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trak._utils.messages import suggest
from trak._utils.plotting import CHANCE, CROWDED, axes, legend, styles
from trak.evaluation.plots import draw_curve, frame
from trak.evaluation.statistics import Bootstrap, Interval, in_words

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]

RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """What becomes of targets when their top-k training examples are taken away, and k random ones."""

    methods: tuple[str, ...]
    """The last is "random"."""
    k: tuple[int, ...]
    """Numbers of training examples taken away."""
    targets: Array
    """Which targets these are, int64 (n_targets,)."""
    drops: Array
    """By how much the mean output of models trained on everything exceeds that of models trained without the k
    examples, in units of f, float64 (methods, k, n_targets). For random removal the mean over random sets."""
    flips: Array | None
    """Whether a prediction that was right is wrong then, 0 or 1 (between for random removal: the share of random sets),
    NaN for a target that was wrong before: float64 of the same shape. None if the task knows no right and wrong."""
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
        known = of_right(self.flips)
        return known.mean(axis=-1) if known.size else np.full(known.shape[:-1], np.nan)

    def __str__(self) -> str:
        parts, shares = [], self.flip_shares
        for i, method in enumerate(self.methods):
            flips = "" if shares is None else f", {shares[i, -1]:.0%} flip"
            interval = Interval(*self.drop_intervals[i, -1].tolist())
            parts.append(f"{method} {self.mean_drops[i, -1]:.3f} ({interval}){flips}")
        return (
            f"Drop of the output without the top {self.k[-1]} (mean of {len(self.targets)} targets, {self.seeds} "
            f"seeds, {in_words(self.confidence)}): " + "; ".join(parts)
        )

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each method and k: method, k, drop, drop_low, drop_high, and flipped, flipped_low, flipped_high if
        the task knows right and wrong.

        Raises:
            ImportError: if pandas is not installed.
        """
        columns: dict[str, Any] = {
            "method": np.repeat(self.methods, len(self.k)),
            "k": np.tile(self.k, len(self.methods)),
            "drop": self.mean_drops.ravel(),
            "drop_low": self.drop_intervals[..., 0].ravel(),
            "drop_high": self.drop_intervals[..., 1].ravel(),
        }
        if self.flip_shares is not None and self.flip_intervals is not None:
            columns["flipped"] = self.flip_shares.ravel()
            columns["flipped_low"] = self.flip_intervals[..., 0].ravel()
            columns["flipped_high"] = self.flip_intervals[..., 1].ravel()
        return frame(columns)

    def lead(self, method: str) -> "pandas.DataFrame":
        """By how much a method's drops exceed each other's on the same targets: a row for each other method and k, with
        columns over, k, lead (mean over targets, in units of f), lead_low, lead_high.

        Targets differ more than methods do, so that the interval of the difference is narrower than those of the drops.

        Raises:
            ValueError: for an unknown method.
            ImportError: if pandas is not installed.
        """
        if method not in self.methods:
            raise ValueError(f"unknown method {method!r}: {suggest(str(method), self.methods)}")
        others = [i for i, other in enumerate(self.methods) if other != method]
        leads = self.drops[self.methods.index(method)] - self.drops[others]
        intervals = Bootstrap(confidence=self.confidence).of_means(leads)
        return frame(
            {
                "over": np.repeat([self.methods[i] for i in others], len(self.k)),
                "k": np.tile(self.k, len(others)),
                "lead": leads.mean(axis=-1).ravel(),
                "lead_low": intervals[..., 0].ravel(),
                "lead_high": intervals[..., 1].ravel(),
            }
        )

    def plot(self, ax: Any = None, what: str | None = None) -> Any:
        """Brittleness curves: "flips" or "drops" by the number of examples taken away; returns the axes.

        Args:
            ax: matplotlib axes to draw on; by default a new figure's.
            what: "flips", the default if the task knows right and wrong, or "drops".

        Raises:
            ValueError: for something else, or flips that are not known.
            ImportError: if matplotlib is not installed.
        """
        what = what or ("drops" if self.flips is None else "flips")
        if what not in ("flips", "drops") or (what == "flips" and self.flips is None):
            raise ValueError(
                f"what must be 'drops', or 'flips' if the task knows right and wrong, got {what!r}; use one of them"
            )
        if what == "flips":
            ylabel, title = "right predictions that flip (%)", "Brittleness"
            values, intervals = 100 * np.asarray(self.flip_shares), 100 * np.asarray(self.flip_intervals)
        else:
            ylabel, title = "drop of the target's output f (units of f)", "Counterfactual effect"
            values, intervals = self.mean_drops, self.drop_intervals
        ax = axes(ax, "training examples removed (k)", ylabel, f"{title}, {in_words(self.confidence)}s")
        crowded = len(self.methods) > CROWDED
        for i, (method, style) in enumerate(zip(self.methods, styles(), strict=False)):
            # Bars of neighbours beside each other.
            x = np.array(self.k) + 0.01 * self.k[-1] * (i - len(self.methods) // 2) * crowded
            draw_curve(ax, x, values[i], intervals[i], method, CHANCE if method == RANDOM else style, bars=crowded)
        ax.axhline(0, color="black", linewidth=0.8)
        legend(ax)
        return ax


def of_right(flips: Array) -> Array:
    """Without the targets that were wrong before."""
    return flips[..., ~np.isnan(flips[0, 0])]
