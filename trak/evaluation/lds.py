"""The linear datamodeling score: how well scores predict models trained on subsets."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LDS:
    """Linear datamodeling score (TRAK, definition 2.3) of an attribution."""

    per_target: Array
    """Spearman correlation for each target, (n_targets,)."""
    noise_ceiling: float
    """What a perfect attribution could reach with this ground truth; NaN with one seed a subset."""

    @property
    def mean(self) -> float:
        """Average over targets."""
        return float(self.per_target.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean, over targets."""
        return (
            float(self.per_target.std(ddof=1) / np.sqrt(len(self.per_target))) if len(self.per_target) > 1 else np.nan
        )

    def __str__(self) -> str:
        return (
            f"LDS {self.mean:.3f} ± {self.standard_error:.3f} (standard error over {len(self.per_target)} targets), "
            f"noise ceiling {self.noise_ceiling:.3f}"
        )


def lds(scores: Array, masks: Array, outputs: Array) -> LDS:
    """Rank correlation, over subsets, of predicted and true outputs.

    Args:
        scores: attribution, (n_train, n_targets).
        masks: which examples each subset holds, bool (n_subsets, n_train).
        outputs: outputs f of models trained on the subsets, (n_subsets, n_seeds, n_targets).

    Raises:
        ValueError: for shapes that do not fit, fewer than 3 subsets, or numbers that are not finite.
        ImportError: if scipy is not installed.
    """
    scores, masks, outputs = np.asarray(scores), np.asarray(masks, bool), np.asarray(outputs, np.float64)
    if outputs.ndim != 3 or masks.shape != (len(outputs), len(scores)) or outputs.shape[2:] != scores.shape[1:]:
        raise ValueError(
            "expected scores (n_train, n_targets), masks (n_subsets, n_train) and outputs (n_subsets, n_seeds, "
            f"n_targets), got {scores.shape}, {masks.shape} and {outputs.shape}"
        )
    if len(masks) < 3:
        raise ValueError(f"a rank correlation needs 3 subsets or more, got {len(masks)}")
    if not (np.isfinite(scores).all() and np.isfinite(outputs).all()):
        raise ValueError("scores and outputs must be finite")
    predicted = masks.astype(np.float64) @ scores
    return LDS(_spearman(predicted, outputs.mean(axis=1)), _ceiling(outputs))


def _spearman(a: Array, b: Array) -> Array:
    """Column by column; 0 where a column is constant."""
    try:
        from scipy.stats import rankdata
    except ImportError as error:
        raise ImportError("trak.evaluation needs scipy: pip install 'trak-attribution[evaluation]'") from error
    x, y = (rankdata(values, axis=0) for values in (a, b))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.divide((x * y).sum(axis=0), norm, out=np.zeros_like(norm), where=norm > 0)


def _ceiling(outputs: Array) -> float:
    """√(reliability of the mean over seeds), by Spearman & Brown (1910) from the mean correlation of two seeds."""
    seeds = outputs.shape[1]
    if seeds < 2:
        return float("nan")
    pairs = [_spearman(outputs[:, i], outputs[:, j]).mean() for i in range(seeds) for j in range(i)]
    single = max(0.0, float(np.mean(pairs)))
    return float(np.sqrt(seeds * single / (1 + (seeds - 1) * single)))
