"""How faithful scores were found to be, as a store remembers it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

_WHOLE = ("num_targets", "subsets", "seeds")


@dataclass(frozen=True)
class Faithfulness:
    """The figures of a linear datamodeling score, see `trak.evaluation.LDS`, without those of single targets."""

    mean: float
    """Over targets."""
    low: float
    """End of the interval of the mean; NaN if it is not known, as are the next and `noise_ceiling`."""
    high: float
    confidence: float
    p_value: float
    noise_ceiling: float
    num_targets: int
    subsets: int
    seeds: int

    def __str__(self) -> str:
        interval = f"{self.low:.3f} to {self.high:.3f}" if self.low <= self.high else "not known"
        ceiling = f"noise ceiling {self.noise_ceiling:.3f}" if math.isfinite(self.noise_ceiling) else "no noise ceiling"
        return (
            f"LDS {self.mean:.3f} ({100 * self.confidence:.4g} % interval {interval}; {self.num_targets} targets, "
            f"{self.subsets} subsets × {self.seeds} seeds), p = {self.p_value:.2g} against chance, {ceiling}"
        )

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self | None:
        """Read back; None if it is damaged."""
        found: dict[str, Any] = {field.name: record.get(field.name) for field in fields(cls)}
        for name in ("low", "high", "noise_ceiling"):
            found[name] = math.nan if found[name] is None else found[name]
        for name, value in found.items():
            kinds, least, most = ((int,), 1, 1 << 62) if name in _WHOLE else ((int, float), -1, 1)
            if type(value) not in kinds or not (math.isnan(value) or least <= value <= most):
                return None
        return None if any(math.isnan(found[name]) for name in ("mean", "confidence", "p_value")) else cls(**found)
