"""Draws what examples/frontier.py measured: `python examples/frontier_picture.py digits snippets`."""

import argparse
import json
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


def draw(name: str, path: Path) -> Path:
    """Two panels: compute without and with the training of the models."""
    table = json.loads((OUTPUT / f"{name}.json").read_text())
    figure, panels = plt.subplots(1, 2, figsize=(13, 5.2), sharey=True, layout="constrained")
    for ax, counted in zip(panels, (False, True), strict=True):
        _panel(ax, table, counted)
    panels[0].set_ylabel("linear datamodeling score (Spearman correlation)")
    panels[0].set_title("checkpoints are there already")
    panels[1].set_title("training of checkpoints counted")
    panels[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    figure.suptitle(f"{name}: faithfulness against compute (95 % intervals)")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _panel(ax: Any, table: dict[str, Any], counted: bool) -> None:
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
    single = [row for row in table["rows"] if row["family"] not in LINES]
    ranks = {row["family"]: rank for rank, row in enumerate(sorted(single, key=lambda row: row["lds"]))}
    for row in single:
        number = others.setdefault(row["family"], len(others) + 1)
        ax.errorbar(row["x"], row["lds"], row["error"], color="#555555", marker=".", capsize=2, linewidth=0.8)
        right = ranks[row["family"]] % 2  # of two at one height, one on either side
        ax.annotate(
            str(number), (row["x"], row["lds"]), xytext=(5 if right else -5, 3), textcoords="offset points", fontsize=9,
            ha="left" if right else "right",
        )  # fmt: skip
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["digits", "fashion", "snippets"])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    for name in arguments.tasks:
        print(draw(name, arguments.output / f"frontier-{name}.png"))


if __name__ == "__main__":
    main()
