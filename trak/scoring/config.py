"""How stored features become scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trak.scoring.damping import AUTO_DAMPING, Damping
from trak.scoring.gram import check_weighting
from trak.store import StoreError


@dataclass(frozen=True)
class ScoringConfig:
    """The settings that decide the scores besides features, checkpoints and targets.

    They belong to an experiment: `trak.attribute` records them, and whoever opens the experiment scores by them.

    Example:
        >>> ScoringConfig().override(damping=0.3).describe()
        {'damping': 0.3, 'weighting': 'ggn', 'normalize_checkpoints': True}
    """

    damping: Damping = AUTO_DAMPING
    """λ, the ridge (Tikhonov) term."""
    weighting: str = "ggn"
    """W in K = ΦᵀWΦ: "ggn" (generalised Gauss-Newton) or "identity", see `trak.scoring.gram`."""
    normalize_checkpoints: bool = True
    """Whether every checkpoint has equal weight in a target's scores, see `trak.scoring.Scorer`."""

    def override(
        self,
        damping: float | str | None = None,
        lambda_reg: float | None = None,
        weighting: str | None = None,
        normalize_checkpoints: bool | None = None,
    ) -> "ScoringConfig":
        """Return a copy with the settings that are not None.

        Raises:
            ValueError: for an invalid value, or if both `damping` and `lambda_reg` are given.
        """
        changes: dict[str, Any] = {}
        if damping is not None or lambda_reg is not None:
            changes["damping"] = Damping.make(damping, lambda_reg)
        if weighting is not None:
            changes["weighting"] = check_weighting(weighting)
        if normalize_checkpoints is not None:
            changes["normalize_checkpoints"] = bool(normalize_checkpoints)
        return replace(self, **changes)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON has them; `damping` may be "auto"."""
        others = {"weighting": self.weighting, "normalize_checkpoints": self.normalize_checkpoints}
        return self.damping.describe() | others

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "ScoringConfig":
        """Read what `describe` returned; defaults for what is missing.

        Raises:
            StoreError: if a value is invalid.
        """
        names = ("damping", "lambda_reg", "weighting", "normalize_checkpoints")
        try:
            return cls().override(**{name: record.get(name) for name in names})
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"the recorded scoring settings {dict(record)!r} are damaged ({error}). Delete the experiment's folder "
                "scoring."
            ) from error


DEFAULT_SCORING = ScoringConfig()
