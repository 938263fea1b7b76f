"""From stored features to scores."""

from trak.scoring.auto_damping import recorded_damping
from trak.scoring.config import ScoringConfig
from trak.scoring.damping import DEFAULT_DAMPING, Damping, solve
from trak.scoring.gram import WEIGHTINGS, check_weighting, gram
from trak.scoring.scorer import MEMORY_BUDGET, Scorer, scoring_settings
from trak.scoring.top_k import TopK, TopKQuery, check_k

__all__ = [
    "DEFAULT_DAMPING",
    "MEMORY_BUDGET",
    "WEIGHTINGS",
    "Damping",
    "Scorer",
    "ScoringConfig",
    "TopK",
    "TopKQuery",
    "check_k",
    "check_weighting",
    "gram",
    "recorded_damping",
    "scoring_settings",
    "solve",
]
