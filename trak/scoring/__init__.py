"""From stored features to scores."""

from trak.scoring.auto_damping import recorded_damping
from trak.scoring.config import ScoringConfig
from trak.scoring.damping import DEFAULT_DAMPING, Damping, solve
from trak.scoring.gram import WEIGHTINGS, check_weighting, gram
from trak.scoring.scorer import MEMORY_BUDGET, Scorer, TopK, check_k, merge_top_k
from trak.scoring.top_k import TopKQuery, computed

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
    "computed",
    "gram",
    "merge_top_k",
    "recorded_damping",
    "solve",
]
