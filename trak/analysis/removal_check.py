"""What became of a target when training examples were removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trak._utils.plotting import STYLES, axes
from trak._utils.typing import Array
from trak.evaluation.result import REFERENCE, Result


@dataclass(frozen=True, eq=False)
class RemovalCheck(Result):
    """Models trained on everything, without the chosen examples, and without as many random ones.

    The table has a row for each model: removed ("nothing", "chosen" or "random"), set (number of the random set, 0 for
    the others), seed (its number), output, and correct if that is known. The figure shows the output of every model, in
    three columns.
    """

    target: int
    k: int
    """How many examples were removed."""
    predicted: float
    """Change of the target's output by the scores, in units of f."""
    outputs: Array
    """f of the target, float64 (2 + random sets, seeds): on everything, without the chosen, without random ones."""
    correct: Array | None
    """Whether the target is predicted right, bool of the same shape; None if the task does not tell."""
    output: float | None = None
    """f by the models that were attributed, if it was given."""

    @property
    def changes(self) -> Array:
        """Of f, by training seed, against the model of the same seed on everything: (1 + random sets, seeds), the
        chosen first."""
        return self.outputs[1:] - self.outputs[0]

    @property
    def change(self) -> float:
        """Of the mean output without the chosen examples."""
        return float(self.changes[0].mean())

    @property
    def standard_error(self) -> float:
        """Of `change`, over seeds; NaN for one seed."""
        own = self.changes[0]
        return float(own.std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else float("nan")

    @property
    def random_changes(self) -> Array:
        """Mean change of each random set, (random sets,)."""
        return self.changes[1:].mean(axis=1)

    @property
    def flipped(self) -> bool | None:
        """Whether most models without the chosen examples are right where most on everything are wrong, or the other
        way round; None if the task does not tell right from wrong."""
        return None if self.correct is None else bool(self._flips[0])

    @property
    def random_flips(self) -> float | None:
        """Share of the random sets whose removal flips the prediction."""
        return None if self.correct is None else float(self._flips[1:].mean())

    @property
    def _flips(self) -> Array:
        mostly = np.mean(self.correct, axis=1) > 0.5  # type: ignore[arg-type]
        return mostly[1:] != mostly[0]

    def __str__(self) -> str:
        random, error = self.random_changes, self.standard_error
        flips = ""
        if self.correct is not None:
            was, now = self.correct[:2].mean(axis=1)
            stays = "does not flip" if was > 0.5 else "was wrong already, and stays so"
            flips = (
                f"; the prediction {'flips' if self.flipped else stays} (right in {was:.0%} of models "
                f"before, {now:.0%} after; {self.random_flips:.0%} of random sets flip it)"
            )
        spread = f", from {random.min():+.3f} to {random.max():+.3f}" if len(random) > 1 else ", one set"
        own = "" if self.output is None else f", with the attributed models {self.output:+.3f}"
        seeds = self.outputs.shape[1]
        alone = "; one seed: how much of this is its noise is not known, take seeds=5" if seeds == 1 else ""
        return (
            f"Without {self.k} training example{'s' * (self.k > 1)} the output of target {self.target} changes by "
            f"{self.change:+.3f}{f' ± {error:.3f}' * bool(np.isfinite(error))} from {self.outputs[0].mean():+.3f}{own} "
            f"(predicted {self.predicted:+.3f}; without random ones {random.mean():+.3f}{spread}){flips}{alone}"
        )

    def _columns(self) -> Mapping[str, Any]:
        sets, seeds = self.outputs.shape
        columns = {
            "removed": np.repeat(["nothing", "chosen", *["random"] * (sets - 2)], seeds),
            "set": np.repeat([0, 0, *range(sets - 2)], seeds),
            "seed": np.tile(np.arange(seeds), sets),
            "output": self.outputs.ravel(),
        }
        return columns if self.correct is None else columns | {"correct": self.correct.ravel()}

    def _draw(self, ax: Any) -> Any:
        ax = axes(ax, "removed from the training set", "output f (units of f)", f"Target {self.target}")
        columns = (self.outputs[0], self.outputs[1], self.outputs[2:].ravel())
        for at, (values, style) in enumerate(zip(columns, STYLES, strict=False)):
            # Beside each other, so that equal ones are seen.
            x = at + np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [at]
            ax.plot(x, values, style.marker, color=style.color, markeredgecolor="black", markersize=6)
            ax.plot([at - 0.25, at + 0.25], [values.mean()] * 2, color="black", linewidth=2, label="_" * at + "mean")
        expected = self.outputs[0].mean() + self.predicted
        ax.plot([0.75, 1.25], [expected] * 2, color="black", linewidth=1.6, linestyle="--", label="predicted")
        ax.axhline(0, **REFERENCE, label="f = 0")
        ax.set_xticks(range(3), ["nothing", f"{self.k} chosen", f"{self.k} random"])
        return ax
