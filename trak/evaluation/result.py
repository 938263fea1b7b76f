"""Base class of results, and what their lines, tables and figures share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from trak._utils.optional import import_optional_dependency
from trak._utils.plotting import CHANCE, STYLES, Style, legend
from trak._utils.typing import Array
from trak.evaluation.statistics import Interval, interval_label

if TYPE_CHECKING:
    import pandas

DataFrame: TypeAlias = "pandas.DataFrame"
REFERENCE: dict[str, Any] = {"color": CHANCE.color, "linestyle": CHANCE.linestyle, "linewidth": 1.2}
"""How lines to compare with look."""


class Result(ABC):
    """A result that prints as one line, becomes a table and draws itself; each class says what is in its table and
    figure."""

    _legend = "best"

    @abstractmethod
    def _columns(self) -> Mapping[str, Any]:
        """Columns of the table, by name."""

    @abstractmethod
    def _draw(self, ax: Any) -> Any:
        """Draw all but the legend on axes, by default those of a new figure; returns them."""

    def to_frame(self) -> DataFrame:
        """The result as a table.

        Raises:
            ImportError: if pandas is not installed.
        """
        return frame(self._columns())

    def plot(self, ax: Any = None) -> Any:
        """Draw the result; returns the axes.

        Args:
            ax: matplotlib axes to draw on; by default those of a new figure.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        ax = self._draw(ax)
        legend(ax, self._legend)
        return ax


def frame(columns: Mapping[str, Any]) -> DataFrame:
    """A table."""
    return import_optional_dependency("pandas", "to_frame needs pandas", "frames").DataFrame(dict(columns))


def with_interval(name: str, values: Array, intervals: Array) -> dict[str, Array]:
    """Columns for values of any shape and their intervals (..., 2): name, name_low, name_high."""
    ends = {f"{name}_{end}": intervals[..., i].ravel() for i, end in enumerate(("low", "high"))}
    return {name: values.ravel(), **ends}


def format_examples(indices: Array, values: Array, form: str = "+.3g") -> str:
    """The first three indices with their values, such as "#7 +0.3, #2 +0.1, #5 +0.05"."""
    return ", ".join(f"#{i} {values[i]:{form}}" for i in indices[:3].tolist())


def draw_curve(ax: Any, x: Any, y: Array, intervals: Array, label: str, style: Style, bars: bool = False) -> None:
    """Points joined by a line, each with its interval (len(x), 2): a band around the line, or bars."""
    if bars:
        ax.errorbar(x, y, np.abs(intervals.T - y), color=style.color, fmt="none", elinewidth=0.9, capsize=2.5)
    else:
        ax.fill_between(x, intervals[:, 0], intervals[:, 1], color=style.color, alpha=0.15, linewidth=0)
        for side in intervals.T:
            ax.plot(x, side, color=style.color, linewidth=0.5, alpha=0.6)
    ax.plot(x, y, label=label, linewidth=1.8, markersize=5.5, **style._asdict())


def draw_distribution(ax: Any, values: Array, mean: float, interval: Interval, confidence: float) -> None:
    """A histogram of the values of the targets, with their mean, its interval and chance."""
    ax.hist(values, bins=min(30, max(5, int(np.sqrt(len(values)) * 2))), color="#d0d0d0", edgecolor="#808080", lw=0.5)
    if np.isfinite(interval).all():
        ax.axvspan(*interval, color=STYLES[0].color, alpha=0.25, linewidth=0)
    ax.axvline(mean, color=STYLES[0].color, linewidth=2.2, label=f"mean {mean:.2f}, {interval_label(confidence)}")
    ax.axvline(0, color="black", linewidth=1, linestyle=":", label="chance")
