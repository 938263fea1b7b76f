"""Matplotlib figures of attributions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trak._utils.optional import import_optional_dependency
from trak._utils.plotting import axes, legend, styles
from trak._utils.typing import Array
from trak._utils.validation import as_indices
from trak.visualization.dataset_reader import value_at
from trak.visualization.images import pixels
from trak.visualization.selection import RankedExamples

_HELPFUL, _HARMFUL = "#0072b2", "#d55e00"


def show_images(
    attribution: RankedExamples,
    train_images: Any,
    target_images: Any,
    *,
    train_labels: Sequence[Any] | None = None,
    target_labels: Sequence[Any] | None = None,
    predicted_labels: Sequence[Any] | None = None,
    targets: Sequence[int] = (0, 1, 2, 3, 4),
    k: int = 5,
    path: str | Path | None = None,
) -> Path | None:
    """Draw a row for each target: its image, the k most helpful and the k most harmful training images.

    Args:
        attribution: the scores.
        train_images, target_images: arrays or tensors (N, H, W), (N, C, H, W) or (N, H, W, C).
        train_labels, target_labels, predicted_labels: names or numbers to print, of length N each.
        targets: which targets to show.
        k: how many training images on either side.
        path: where to write the picture; without it the current matplotlib figure shows it.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if a target is out of range or repeated.
    """
    plt = import_optional_dependency("matplotlib.pyplot", "pictures need matplotlib", "pictures")
    targets = as_indices(targets, attribution.shape[1], "targets").tolist()
    helpful, harmful = attribution.top(k), attribution.top(k, bottom=True)
    rows, columns = len(targets), 2 * k + 1
    figure, axes = plt.subplots(
        rows, columns + 2, figsize=(1.15 * (columns + 0.8), 1.5 * rows + 0.8), squeeze=False,
        gridspec_kw={"width_ratios": [1, 0.25, *[1] * k, 0.25, *[1] * k]},
    )  # fmt: skip
    for axis in axes.flat:
        axis.axis("off")
    for row, target in zip(axes, targets, strict=True):
        caption = "" if target_labels is None else f"label {value_at(target_labels, target)}"
        if predicted_labels is not None:
            caption += f"\npredicted {value_at(predicted_labels, target)}"
        _draw_image(row[0], value_at(target_images, target), caption, "black")
        for first, found, colour in ((2, helpful, _HELPFUL), (k + 3, harmful, _HARMFUL)):
            for axis, index, score in zip(row[first:], found.indices[target], found.scores[target], strict=False):
                label = "" if train_labels is None else f"label {value_at(train_labels, index)}\n"
                _draw_image(axis, value_at(train_images, index), f"{label}{score:+.2g}", colour)
    for column, title, colour in (
        (0, "target", "black"),
        (2 + k // 2, "training images that pushed it up", _HELPFUL),
        (3 + k + k // 2, "training images that pushed it down", _HARMFUL),
    ):
        axes[0][column].set_title(title, fontsize=11, color=colour, fontweight="bold", pad=8)
    figure.tight_layout(h_pad=0.6, w_pad=0.3)
    if path is None:
        return None
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _draw_image(axis: Any, image: Any, caption: str, colour: str) -> None:
    array = pixels(image)
    axis.axis("on")
    axis.set(xticks=[], yticks=[])
    axis.imshow(array, cmap="gray_r" if array.ndim == 2 else None, vmin=0, vmax=255)
    axis.set_xlabel(caption, fontsize=8.5, labelpad=2)
    for side in axis.spines.values():
        side.set(color=colour, linewidth=2)


def plot_scores(scores: Array, targets: int | Sequence[int] = 0, k: int = 5, ax: Any = None) -> Any:
    """Plot the distribution of targets' scores: the number of training examples whose score is at least as far from 0,
    on either side of it, with the k highest and the k lowest marked.

    Args:
        scores: (n_train, n_targets).
        targets: one or several.
        k: how many to mark at either end. Those of a single target are numbered.
        ax: matplotlib axes to draw on; by default a new figure's.

    Returns:
        The axes of score in units of f and number of training examples on a logarithmic scale.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if a target is out of range, or k is negative.
        TypeError: if a target is no integer.
    """
    chosen = as_indices(np.atleast_1d(targets), scores.shape[1], "targets").tolist()
    if k < 0:
        raise ValueError(f"k must be 0 or more, got {k}; use 0 to mark none")
    subject = f"target {chosen[0]}" if len(chosen) == 1 else f"{len(chosen)} targets"
    ax = axes(
        ax,
        f"score (units of f); the {k} highest and lowest are marked",
        "training examples as far from 0 or farther",
        f"Scores of {len(scores)} training examples for {subject}",
    )
    for target, style in zip(chosen, styles(), strict=False):
        column, label = np.asarray(scores[:, target], np.float64), f"target {target}"
        for sign in (-1, 1):
            order = np.argsort(-sign * column, kind="stable")[: np.count_nonzero(sign * column > 0)]
            marked = list(range(min(k, len(order))))
            ax.plot(
                column[order], np.arange(1, len(order) + 1), label=label, linewidth=1.6, markersize=5.5,
                markeredgecolor="black", markevery=marked, **style._asdict(),
            )  # fmt: skip
            for rank in marked if len(chosen) == 1 else []:
                place = {"xytext": (6 * sign, 0), "ha": "left" if sign > 0 else "right", "va": "center"}
                ax.annotate(
                    f"#{order[rank]}", (column[order[rank]], rank + 1), textcoords="offset points", fontsize=8, **place
                )
            label = "_"
    ax.set_yscale("log")
    ax.margins(x=0.1)
    ax.axvline(0, color="black", linewidth=0.8)
    legend(ax)
    return ax
