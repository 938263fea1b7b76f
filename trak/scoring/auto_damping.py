"""Damping chosen from what is stored: the one that explains how far held-out examples are from trained ones."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from trak._utils.typing import Array
from trak._utils.validation import is_number
from trak.inputs.batches import combined_digest
from trak.scoring.config import ScoringConfig
from trak.scoring.damping import Damping
from trak.store import Experiment, StoreError, Table

SUBSET_FRACTION = 0.5
"""Of the training set, that models are trained on whose outputs the scores are to predict."""
_GRID = np.geomspace(0.05, 50, 25)
_BOUNDS = 0.3, 10.0
FEWEST_TARGETS, CHECKPOINTS_EACH = 100, 10
"""To choose by, and how many checkpoints one stands for."""
FOLDED, SAMPLED_ROWS, _LARGEST_DISTANCE = 1024, 4096, 0.3

logger = logging.getLogger("trak")


def resolve(scoring: ScoringConfig, experiment: Experiment, model_ids: Sequence[int]) -> Damping:
    """The damping in force: the one given, or for "auto" the recorded one, chosen by `choose` the first time.

    The first process that chooses records its value, which every process and every later session uses from then on.
    """
    if (recorded := recorded_damping(scoring, experiment, model_ids)) is not None:
        return recorded
    value, why = choose(experiment, model_ids, scoring.weighting)
    record = {"value": scoring.damping.value if value is None else value, "why": why}
    try:
        record = experiment.record_damping(_decided_by(scoring, experiment, model_ids), record)
    except OSError as error:  # a store that cannot be written to
        logger.warning("The chosen damping could not be recorded (%s); another machine may choose another.", error)
    found = _read(record)
    logger.info("damping: %.3g (%s)", found.value, found.why)
    return found


def recorded_damping(scoring: ScoringConfig, experiment: Experiment, model_ids: Sequence[int]) -> Damping | None:
    """The damping that was chosen for "auto", or the one given; None while it is not chosen.

    Raises:
        StoreError: if the record is damaged.
    """
    if not scoring.damping.auto:
        return scoring.damping
    record = experiment.damping(_decided_by(scoring, experiment, model_ids))
    return _read(record) if record else None


def _decided_by(scoring: ScoringConfig, experiment: Experiment, model_ids: Sequence[int]) -> dict[str, Any]:
    """What the choice depends on besides the rows of the store."""
    return {
        "weighting": scoring.weighting,
        "model_ids": list(model_ids),
        "fingerprints": [experiment.store.fingerprint(i) for i in model_ids],
        "targets": [combined_digest(experiment.targets(i).hashes(slice(None))) for i in model_ids],
    }


def _read(record: Mapping[str, Any]) -> Damping:
    value: Any = record.get("value")
    why = record.get("why")
    if not is_number(value) or not 0 <= value < float("inf") or not isinstance(why, str):
        raise StoreError(f"the recorded damping {dict(record)!r} is damaged. Delete the experiment's folder damping.")
    return Damping(float(value), why=why)


def choose(experiment: Experiment, model_ids: Sequence[int], weighting: str) -> tuple[float | None, str]:
    """Relative damping at which the linearised model generalises as the network does, or None; and why.

    Leaving example i out moves its output by -h_i Q_i / (1 - R_i h_i), h_i = φ_iᵀ(K + λI)⁻¹φ_i, to first order (a step
    of Newton's method: Pregibon, "Logistic regression diagnostics", 1981; exact for squared errors). The smaller λ, the
    farther. Targets are left out of training in fact, so λ is taken such that the mean `|Q|` of training examples left
    out equals that of the targets. Models trained on a fraction α of the examples have the Gram matrix
    αK, so that for their outputs, which the linear datamodeling score is about, it is λ/α, with α = 1/2. It is kept
    between 0.3 and 10.

    That says something only if the targets are a sample of what the training examples are a sample of. None is
    returned for fewer than 100, and if the outputs of the examples left out are distributed otherwise than the targets'
    (Kolmogorov-Smirnov distance above 0.3); or if there is no curvature, or no gap between the two.

    One checkpoint in ten, 4,096 rows and 1,024 dimensions stand for all; one eigendecomposition each serves every λ.
    """
    if experiment.num_targets < FEWEST_TARGETS:
        return None, f"the default: {experiment.num_targets} targets are too few to choose by"
    found = []
    for model_id in model_ids[::CHECKPOINTS_EACH]:
        train, gram = experiment.store.table(model_id), experiment.store.gram(model_id, weighting)
        if not any(train.column("out_to_loss_curvature", rows).any() for _, rows in train.chunks()):
            return None, "the default: the loss has no curvature, so that nothing is known of left-out examples"
        found.append(_LeftOut(train, experiment.targets(model_id), gram, weighting))
    gaps = np.mean([one.gaps() for one in found], axis=0)
    if gaps[-1] >= 0:
        return None, "the default: targets' residuals are no larger than training examples'"
    at = int(np.argmax(gaps < 0))
    distance = np.mean([one.distance(at) for one in found])
    if distance > _LARGEST_DISTANCE:
        return None, (
            "the default: the targets' outputs are unlike those of left-out training examples (Kolmogorov-Smirnov "
            f"distance {distance:.2f})"
        )
    # Where the gap is 0, between this λ of the grid and the one before.
    share = gaps[at - 1] / (gaps[at - 1] - gaps[at]) if at else 1.0
    crossing = np.exp((1 - share) * np.log(_GRID[at - 1]) + share * np.log(_GRID[at]))
    value = float(np.clip(crossing / SUBSET_FRACTION, *_BOUNDS))
    return value, f"chosen by {experiment.num_targets} targets and {len(found)} of {len(model_ids)} checkpoints"


class _LeftOut:
    """Training examples of a checkpoint as if left out, for each λ of the grid, beside the targets."""

    def __init__(self, train: Table, targets: Table, gram: Array, weighting: str) -> None:
        rows = np.arange(len(train))
        if len(rows) > SAMPLED_ROWS:
            rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLED_ROWS, replace=False))
        train.verify_rows(rows)
        # W = I leaves the mean curvature out of K.
        missing = 1.0 if weighting == "ggn" else float(train.column("out_to_loss_curvature").mean())
        h = _leverages(train.take(rows, np.float32), gram) / missing
        names = ("output", "out_to_loss_grad", "out_to_loss_curvature")
        f, q, curvature = (train.column(name, rows) for name in names)
        self._outputs = f[:, None] - h * q[:, None] / (1 - np.minimum(h * curvature[:, None], 0.999))
        self._targets, target_q = targets.column("output"), targets.column("out_to_loss_grad")
        # Q as a function of f, as the rows have it.
        known = np.concatenate([f, self._targets])
        order = np.argsort(known, kind="stable")
        self._known, self._size = known[order], np.abs(np.concatenate([q, target_q]))[order]
        self._target_size = np.abs(target_q).mean()

    def gaps(self) -> Array:
        """By how much the mean |Q| of the examples left out exceeds the targets', for each λ."""
        return np.interp(self._outputs, self._known, self._size).mean(axis=0) - self._target_size

    def distance(self, at: int) -> float:
        """Kolmogorov-Smirnov distance of the outputs at one λ."""
        a, b = np.sort(self._outputs[:, at]), np.sort(self._targets)
        points = np.concatenate([a, b])
        shares = [np.searchsorted(sample, points, side="right") / len(sample) for sample in (a, b)]
        return float(np.abs(shares[0] - shares[1]).max())


def _leverages(features: Array, gram: Array) -> Array:
    """φ_iᵀ(K + λI)⁻¹φ_i for each λ of the grid: (rows, len(grid))."""
    k, trace = len(gram), np.trace(gram)
    if k > FOLDED:
        # A sketch of the features, by blocks of columns under random signs.
        signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), k)
        features = _folded(features * signs)
        gram = _folded(_folded(gram * signs * signs[:, None]).T)
    values, vectors = torch.linalg.eigh(torch.from_numpy(gram).float())
    inside = (torch.from_numpy(features) @ vectors).square()
    damped = values.clamp_min(0)[:, None] + torch.from_numpy(_GRID * (trace / k)).float()
    return (inside @ damped.reciprocal()).double().numpy()


def _folded(rows: Array) -> Array:
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % FOLDED)))
    return padded.reshape(len(rows), -1, FOLDED).sum(axis=1)
