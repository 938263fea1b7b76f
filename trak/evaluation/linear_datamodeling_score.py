"""The linear datamodeling score: how well scores predict models trained on subsets."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trak._utils.plotting import axes
from trak._utils.typing import Array
from trak._utils.validation import as_array, check_count
from trak.attribution.faithfulness import Faithfulness
from trak.attribution.results import Attribution
from trak.evaluation import statistics
from trak.evaluation.ground_truth import GroundTruth
from trak.evaluation.result import Result, draw_distribution
from trak.evaluation.statistics import CONFIDENCE, RESAMPLES, Bootstrap, Interval
from trak.evaluation.validation import Indices, Scores, as_scores, row_blocks

PERMUTATIONS = 10_000


@dataclass(frozen=True, eq=False)
class LDS(Result):
    """Linear datamodeling score (TRAK, definition 2.3) of an attribution.

    The table has a row for each target: target, lds, low, high. The figure is the distribution over targets, with the
    mean, its interval and the noise ceiling.
    """

    per_target: Array
    """Spearman correlation for each target, (n_targets,)."""
    per_target_intervals: Array
    """Their intervals over subsets, (n_targets, 2)."""
    interval: Interval
    """Of the mean, over subsets and targets."""
    confidence: float
    p_value: float
    """Chance that this mean or more is reached, on these targets, if the outcomes of the subsets are shuffled. Random
    scores reach it more often where subsets are not few beside training examples: by accident they have some truth."""
    noise_ceiling: float
    """What a perfect attribution could reach with this ground truth; NaN with one seed a subset."""
    targets: Array
    """Which targets these are, int64 (n_targets,)."""
    subsets: int
    seeds: int

    @property
    def mean(self) -> float:
        """Average over targets."""
        return float(self.per_target.mean())

    @property
    def figures(self) -> Faithfulness:
        """All but those of single targets."""
        counts = len(self.per_target), self.subsets, self.seeds
        return Faithfulness(self.mean, *self.interval, self.confidence, self.p_value, self.noise_ceiling, *counts)

    def __str__(self) -> str:
        return str(self.figures)

    def _columns(self) -> Mapping[str, Any]:
        low, high = self.per_target_intervals.T
        return {"target": self.targets, "lds": self.per_target, "low": low, "high": high}

    def _draw(self, ax: Any) -> Any:
        ax = axes(ax, "LDS of a target (Spearman correlation)", "number of targets", "Linear datamodeling score")
        draw_distribution(ax, self.per_target, self.mean, self.interval, self.confidence)
        if np.isfinite(self.noise_ceiling):
            label = f"noise ceiling {self.noise_ceiling:.2f}"
            ax.axvline(self.noise_ceiling, color="black", linewidth=1.6, linestyle="--", label=label)
        return ax


def lds(
    scores: Scores,
    masks: Array | GroundTruth,
    outputs: Array | None = None,
    *,
    targets: Indices | None = None,
    subsets: Indices | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> LDS:
    """Rank correlation, over subsets, of predicted and true outputs (TRAK, definition 2.3).

    Do not report an LDS on the data by which a method or its damping was chosen: choose on one part of
    `ground_truth.split()`, report the other.

    Args:
        scores: attribution, (n_train, n_targets), or anything with such `.scores`. An `Attribution` keeps the
            result as its `faithfulness`, which its summary and reports name, a stored one for other processes, too.
        masks: which examples each subset holds, bool (n_subsets, n_train), or a `GroundTruth` in place
            of masks and outputs. Scores have a column for each target of the whole ground truth, also
            where `masks` is a part of one: it knows which columns are its own.
        outputs: outputs f of models trained on the subsets, (n_subsets, n_seeds, n_targets).
        targets, subsets: which to use, by default all.
        confidence: of the intervals: percentiles of the bootstrap over subsets and targets, two-sided.
        resamples: of the bootstrap.
        permutations: of subsets, for the one-sided p-value, which is 1 / (permutations + 1) at least.
        seed: of both.

    Raises:
        ValueError: for shapes that do not fit, fewer than 3 subsets, or numbers that are not finite.
        ImportError: if scipy is not installed.
    """
    given, scores = scores, as_scores(scores)
    if isinstance(masks, GroundTruth):
        if outputs is not None:
            raise ValueError(
                f"a GroundTruth has outputs of its own, and outputs was given as {type(outputs).__name__}, too; leave "
                "outputs out"
            )
        truth = masks
    elif outputs is None:
        raise ValueError("outputs is missing: call lds(scores, masks, outputs) or lds(scores, ground_truth)")
    else:
        truth = GroundTruth(as_array(masks), as_array(outputs))
    bootstrap, permutations = Bootstrap(resamples, confidence, seed), check_count(permutations, "permutations")
    if scores.shape != (truth.masks.shape[1], truth.num_targets):
        raise ValueError(
            "expected scores (n_train, n_targets), masks (n_subsets, n_train) and outputs (n_subsets, n_seeds, "
            f"n_targets), got {scores.shape}, {truth.masks.shape} and {truth.outputs.shape}"
            + (f" of {truth.num_targets} targets" if len(truth.targets) != truth.num_targets else "")
            + "; pass arrays of these shapes with as many of each"
        )
    if isinstance(given, Attribution) and len({given.targets_digest, truth.targets_digest} - {None}) > 1:
        warnings.warn(
            f"the targets of {given.name!r} hold other data than those that the models were measured on; attribute the "
            "same targets in the same order, unless they are the same examples under another encoding",
            stacklevel=2,
        )
    truth = truth.select(targets, subsets)
    m, seeds, _ = truth.outputs.shape
    if seeds > 1 and (truth.outputs == truth.outputs[:, :1]).all():
        warnings.warn(
            "models of different seeds gave the very same outputs, so that the noise ceiling says nothing of their "
            "noise; let train use its seed for initial weights and the order of examples, unless nothing is random",
            stacklevel=2,
        )
    if m < 3:
        raise ValueError(f"a rank correlation needs 3 subsets or more, got {m}; train on more subsets")
    predicted, outcomes = np.zeros((m, len(truth.targets))), truth.outputs.mean(axis=1)
    for start, block in row_blocks(scores, truth.targets):
        predicted += truth.masks[:, start : start + len(block)].astype(np.float64) @ block
    x, y = statistics.standardized_ranks(predicted), statistics.standardized_ranks(outcomes)
    draws = bootstrap.counts(m)
    pairs = zip(predicted.T, outcomes.T, strict=True)
    resampled = np.stack([statistics.resampled_spearman(a, b, draws) for a, b in pairs], axis=1)
    target_shares = bootstrap.counts(len(truth.targets)) / len(truth.targets)
    interval = Interval(*bootstrap.interval((resampled * target_shares).sum(axis=1)).tolist())
    p_value, ceiling = statistics.permutation_p_value(x, y, permutations, seed), _noise_ceiling(truth.outputs)
    values, intervals = (x * y).sum(axis=0), bootstrap.interval(resampled)
    found = LDS(values, intervals, interval, bootstrap.confidence, p_value, ceiling, truth.targets, m, seeds)
    if isinstance(given, Attribution):
        given.remember(found)
    return found


def _noise_ceiling(outputs: Array) -> float:
    """√(reliability of the mean over seeds), by Spearman & Brown (1910) from the mean correlation of two seeds."""
    seeds = outputs.shape[1]
    if seeds < 2:
        return float("nan")
    pairs = [statistics.spearman(outputs[:, i], outputs[:, j]).mean() for i in range(seeds) for j in range(i)]
    single = max(0.0, float(np.mean(pairs)))
    return float(np.sqrt(seeds * single / (1 + (seeds - 1) * single)))
