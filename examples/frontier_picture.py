"""Draws what examples/frontier.py measured: `python examples/frontier_picture.py digits snippets`."""

import argparse
import json
from math import hypot
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from frontier import OUTPUT
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

LINES = {
    "TRAK": ("#08519c", "o", "-", "TRAK, more and more checkpoints"),
    "datamodel": ("#d95f0e", "s", "--", "datamodels"),
    "empirical_influence": ("#7a0177", "^", ":", "empirical influence"),
}

PLACES = [(x, y) for y in (4, -7, 15, -18) for x in (9, -9, 20, -20)]
"""Of a number beside its point, in points, the best first."""


def draw(name: str, path: Path) -> Path:
    """Two panels: compute without and with the training of the models."""
    table = json.loads((OUTPUT / f"{name}.json").read_text())
    figure, panels = plt.subplots(1, 2, figsize=(13, 5.2), sharey=True, layout="constrained")
    numbered = [_panel(ax, table, counted) for ax, counted in zip(panels, (False, True), strict=True)]
    panels[0].set_ylabel("linear datamodeling score (Spearman correlation)")
    panels[0].set_title("checkpoints are there already")
    panels[1].set_title("training of checkpoints counted")
    panels[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    figure.suptitle(f"{name}: faithfulness against compute (95 % intervals)")
    figure.canvas.draw()  # which says where everything is
    for ax, points in zip(panels, numbered, strict=True):
        _write_numbers(ax, points)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _panel(ax: Any, table: dict[str, Any], counted: bool) -> list[tuple[int, float, float]]:
    """Draws all but the numbers: (number, x, y) of each point that gets one."""
    others: dict[str, int] = {}
    for row in table["rows"]:
        row["x"] = max(0.02, row["seconds"] + (row["training"] if counted or row["family"] in tuple(LINES)[1:] else 0))
        row["error"] = [[row["lds"] - row["low"]], [row["high"] - row["lds"]]]
    for family, (color, marker, line, label) in LINES.items():
        rows = [row for row in table["rows"] if row["family"] == family]
        x, y = [row["x"] for row in rows], [row["lds"] for row in rows]
        ax.plot(x, y, color=color, marker=marker, linestyle=line, linewidth=1.6, label=label)
        for row in rows:
            ax.errorbar(row["x"], row["lds"], row["error"], color=color, capsize=2, linewidth=1)
    points = []
    for row in table["rows"]:
        if row["family"] in LINES:
            continue
        points.append((others.setdefault(row["family"], len(others) + 1), row["x"], row["lds"]))
        ax.errorbar(row["x"], row["lds"], row["error"], color="#555555", marker=".", capsize=2, linewidth=0.8)
    for text, number in others.items():
        ax.plot([], [], linestyle="", label=f"{number}  {text}")
    ax.axhline(table["ceiling"], color="black", linewidth=1.2, linestyle="--", label="noise ceiling")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("single-core seconds")
    ax.spines[["top", "right"]].set_visible(False)
    return points


def _write_numbers(ax: Any, points: list[tuple[int, float, float]]) -> None:
    """Each beside its point, where the fewest other numbers and points are near."""
    scale = ax.figure.dpi / 72
    taken = [ax.transData.transform(point[1:]) / scale for point in points]
    for (number, *point), at in zip(points, list(taken), strict=True):
        place = min(PLACES, key=lambda place: sum(hypot(*(at + place - other)) < 9.5 for other in taken))
        taken.append(at + place)
        ax.annotate(
            str(number), point, xytext=place, textcoords="offset points", fontsize=9, ha="center", va="center"
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["digits", "fashion", "snippets"])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    for name in arguments.tasks:
        print(draw(name, arguments.output / f"frontier-{name}.png"))


if __name__ == "__main__":
    main()
