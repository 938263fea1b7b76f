"""Which training examples would I remove to change this prediction, and would it change?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trak._utils.plotting import STYLES, axes
from trak._utils.typing import Array
from trak._utils.validation import check_count
from trak.distributed import Ray
from trak.evaluation.ranking import top_indices
from trak.evaluation.result import REFERENCE, Result, format_examples
from trak.evaluation.retraining import Retrainer, Train, random_subset, runs_without
from trak.evaluation.validation import Scores, as_finite, as_scores, check_k, check_target
from trak.inputs.batches import Batch
from trak.store.location import Location
from trak.tasks import Task


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
        removed = np.repeat(["nothing", "chosen", *["random"] * (sets - 2)], seeds)
        number, seed = np.repeat([0, 0, *range(sets - 2)], seeds), np.tile(np.arange(seeds), sets)
        columns = {"removed": removed, "set": number, "seed": seed, "output": self.outputs.ravel()}
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


@dataclass(frozen=True, eq=False)
class RemovalSet(Result):
    """Training examples to remove, and what their scores predict of it.

    The table has a row for each, in their order: train_index, score, and predicted, the change of the output without it
    and all before it. The figure shows the predicted output, or its change if the output is not known, by the number of
    examples removed.
    """

    target: int
    indices: Array
    """The training examples, the most influential first, int64 (k,)."""
    scores: Array
    """Of the target, float64 (n_train,)."""
    num_targets: int
    """Of the attribution."""
    output: float | None = None
    """f as it is, if it was given."""

    @property
    def predicted(self) -> float:
        """Change of the target's output f by the scores: minus their sum over what is removed."""
        return -float(self.scores[self.indices].sum())

    @property
    def predicted_flip(self) -> bool | None:
        """Whether the output is predicted to change its sign; None if it was not given."""
        return None if self.output is None else self.output * (self.output + self.predicted) <= 0

    def check(
        self,
        train: Train,
        task: Task | str | Any,
        targets: Iterable[Batch],
        *,
        save_dir: Location,
        seeds: int = 5,
        random_sets: int = 5,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        jobs: int | None = None,
        backend: str | Ray = "loky",
        progress: bool = True,
    ) -> RemovalCheck:
        """Retrain without these examples, and without as many random ones, and measure the target again.

        `seeds` · (2 + random_sets) models are trained, less those that `save_dir` has; those on everything and without
        random examples serve other targets, too.

        Args:
            train, task, save_dir, config, jobs, backend, progress: see `trak.evaluation.retrain_on`.
            targets: all that were attributed, in the same order.
            seeds: models trained on each set, with the same training seeds for all sets.
            random_sets: random sets of as many examples.
            seed: of random sets and training.

        Raises:
            ValueError: for another number of targets than was attributed, or see `retrain_on`.
            RetrainingError, TypeError, ImportError: see `retrain_on`.
        """
        n, k = len(self.scores), len(self.indices)
        seeds, random_sets = check_count(seeds, "seeds"), check_count(random_sets, "random_sets")
        retrainer = Retrainer(train, task, targets, n, save_dir, config, jobs, backend, progress)
        if retrainer.store.config.num_targets != self.num_targets:
            raise ValueError(
                f"targets are {retrainer.store.config.num_targets}, but {self.num_targets} were attributed; give "
                "the same, in the same order"
            )
        sets = [("everything", np.empty(0, np.int64)), (f"all but {k} for target {self.target}", self.indices)]
        sets += [(f"all but {k} random ones, number {i}", random_subset(seed, i, n, k / n)) for i in range(random_sets)]
        found = retrainer.run(runs_without(sets, n, seeds, seed))
        outputs = found.outputs[:, self.target].reshape(len(sets), seeds)
        correct = None if found.correct is None else found.correct[:, self.target].reshape(len(sets), seeds)
        return RemovalCheck(self.target, k, self.predicted, outputs, correct, self.output)

    def __str__(self) -> str:
        end = ""
        if self.output is not None:
            end = f" from {self.output:+.3g}: {'a' if self.predicted_flip else 'no'} change of sign"
        return (
            f"Removal of {len(self.indices)} of {len(self.scores)} training examples for target {self.target}, first "
            f"{format_examples(self.indices, self.scores)}: the output is predicted to change by "
            f"{self.predicted:+.3g}{end}"
        )

    def _columns(self) -> Mapping[str, Any]:
        scores = self.scores[self.indices]
        return {"train_index": self.indices, "score": scores, "predicted": -scores.cumsum()}

    def _draw(self, ax: Any) -> Any:
        start, what = (0.0, "predicted change of f") if self.output is None else (self.output, "predicted output f")
        ax = axes(ax, "training examples removed", f"{what} (units of f)", f"Removal for target {self.target}")
        after = start - np.append(0.0, self.scores[self.indices].cumsum())
        ax.locator_params("x", integer=True)
        ax.plot(np.arange(len(after)), after, label="by the scores", linewidth=1.8, markersize=4, **STYLES[0]._asdict())
        ax.axhline(0, **REFERENCE, label="nothing removed" if self.output is None else "change of sign")
        return ax


def find_removal_set(
    scores: Scores, target: int, k: int | None = None, *, output: float | None = None, decrease: bool | None = None
) -> RemovalSet:
    """Find the k training examples whose removal is predicted to change a target's output most, or the fewest that are
    predicted to change its sign.

    Removing those with the highest scores decreases the output, removing those with the lowest increases it. The
    prediction is to first order and damped, and single models differ: `RemovalSet.check` retrains and measures.

    Args:
        scores: (n_train, n_targets), or anything with such `.scores`.
        target: which.
        k: how many; by default, which needs the output, as many as the scores say it takes to change the sign of f,
            or all that keep it if they do not suffice.
        output: f of the target, such as the margin log(p / (1 - p)), which is above 0 where p is above ½; the mean over
            the checkpoints that were attributed.
        decrease: whether to decrease the output; by default unless it is below 0. Of several classes the right one may
            be predicted with p below ½: then give k and decrease=True.

    Raises:
        ValueError: for a single training example; if neither k nor output is given, or without k the output has the
            wanted sign; for a target or k out of range, or numbers that are not finite; if no training example keeps
            the output as it is.
        TypeError: for arguments of another type.
    """
    scores = as_scores(scores)
    n, num_targets = scores.shape
    target = check_target(target, num_targets)
    if n < 2:
        raise ValueError(f"scores are of {n} training example, and one has to stay; give those of two or more")
    try:
        output = None if output is None else float(output)
    except (TypeError, ValueError) as error:
        raise TypeError(f"output must be a number, got {output!r:.80}; give f of target {target}") from error
    if output is not None and not np.isfinite(output):
        raise ValueError(f"output must be finite, got {output}; give f of target {target}")
    column = as_finite(scores[:, target], f"the scores of target {target}")
    if decrease is None:
        decrease = output is None or output >= 0
    sign = 1.0 if decrease else -1.0
    order = top_indices(sign * column)
    if k is not None:
        k = check_k(k, n - 1)
    elif output is None:
        raise ValueError(
            f"target {target} has neither k nor output; give k, the number of examples to remove, or "
            "output, to remove as many as flip it"
        )
    elif sign * output < 0:
        raise ValueError(
            f"output is {output:+.3g}, and {'de' if decrease else 'in'}creasing it changes no sign: give k, the number "
            "of examples to remove"
        )
    else:
        # One example at least is kept.
        effects = sign * column[order[:-1]]
        summed = effects[effects > 0].cumsum()
        k = min(int(np.searchsorted(summed, abs(output))) + 1, len(summed))
        if not k:
            raise ValueError(
                f"no training example {'in' if decrease else 'de'}creases the output of target {target}, so no removal "
                "brings it nearer to 0; give k to remove some all the same"
            )
    return RemovalSet(target, order[:k], column, num_targets, output)
