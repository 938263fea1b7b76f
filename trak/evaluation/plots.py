"""Tables and pictures of results: what they share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trak._utils.optional import import_optional_dependency
from trak._utils.plotting import STYLES, Style

if TYPE_CHECKING:
    import pandas

Array = np.ndarray[Any, Any]


def frame(columns: Mapping[str, Any]) -> "pandas.DataFrame":
    """A table.

    Raises:
        ImportError: if pandas is not installed.
    """
    found: pandas.DataFrame = import_optional_dependency("pandas", "to_frame needs pandas", "frames").DataFrame(
        dict(columns)
    )
    return found


def draw_curve(
    ax: Any, x: Any, y: Array, intervals: Array | None, label: str, style: Style, bars: bool = False
) -> None:
    """Points joined by a line, each with its interval (len(x), 2): a band around the line, or bars."""
    if intervals is not None and bars:
        ax.errorbar(x, y, np.abs(intervals.T - y), color=style.color, fmt="none", elinewidth=0.9, capsize=2.5)
    elif intervals is not None:
        ax.fill_between(x, intervals[:, 0], intervals[:, 1], color=style.color, alpha=0.15, linewidth=0)
        for side in intervals.T:
            ax.plot(x, side, color=style.color, linewidth=0.5, alpha=0.6)
    ax.plot(x, y, label=label, linewidth=1.8, markersize=5.5, **style._asdict())


def draw_distribution(ax: Any, values: Array, mean: float, interval: Any, mean_label: str) -> None:
    """A histogram of the values of the targets, with their mean and its interval."""
    ax.hist(values, bins=min(30, max(5, int(np.sqrt(len(values)) * 2))), color="#d0d0d0", edgecolor="#808080", lw=0.5)
    if np.isfinite(interval).all():
        ax.axvspan(*interval, color=STYLES[0].color, alpha=0.25, linewidth=0)
    ax.axvline(mean, color=STYLES[0].color, linewidth=2.2, label=mean_label)
