"""How pictures look: styles that can be told apart in grey and by the colour-blind, axes, legends; needs matplotlib."""

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from trak._utils.optional import import_optional_dependency


class Style(NamedTuple):
    """Of one curve. Colours are Okabe & Ito's (2008), which the colour-blind can tell; marker and dashes tell them in
    grey."""

    color: str
    marker: str
    linestyle: str


STYLES = (
    Style("#0072b2", "o", "-"),
    Style("#d55e00", "s", "--"),
    Style("#009e73", "^", "-."),
    Style("#cc79a7", "D", (0, (5, 1, 1, 1, 1, 1))),  # type: ignore[arg-type]
    Style("#e69f00", "v", (0, (3, 1))),  # type: ignore[arg-type]
    Style("#56b4e9", "P", (0, (8, 2))),  # type: ignore[arg-type]
)
CROWDED = 5
"""More curves than this are more than bands and a legend inside of the axes can be told apart for."""
CHANCE = Style("#595959", "x", ":")


def styles() -> Iterator[Style]:
    """One after the other; when there are no more, colours come again with another marker and other dashes."""
    for turn in count():
        for i, style in enumerate(STYLES):
            marker, dashes = STYLES[(i + turn) % len(STYLES)], STYLES[(i + 2 * turn) % len(STYLES)]
            yield Style(style.color, marker.marker, dashes.linestyle)


def axes(given: Any, xlabel: str, ylabel: str, title: str) -> Any:
    """The matplotlib axes to draw on: the given ones, or those of a new figure; labelled."""
    if given is None:
        plt = import_optional_dependency("matplotlib.pyplot", "plot needs matplotlib", "pictures")
        _, given = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    given.set(xlabel=xlabel, ylabel=ylabel)
    given.set_title(title, loc="left", fontsize=11)
    given.spines[["top", "right"]].set_visible(False)
    given.set_axisbelow(True)
    given.grid(color="#e0e0e0", linewidth=0.6)
    return given


def legend(ax: Any, loc: str = "best") -> None:
    """On white, so that what it covers does not disturb it; beside the axes if it is long."""
    if len(ax.get_legend_handles_labels()[1]) > CROWDED:
        ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    else:
        ax.legend(fontsize=9, loc=loc, framealpha=0.9, edgecolor="none")
