"""From stored features to scores."""

from trak.scoring.gram import WEIGHTINGS, check_weighting, gram
from trak.scoring.shared import Best, computed
from trak.scoring.solve import DEFAULT_DAMPING, Damping, solve
from trak.scoring.stream import MEMORY_BUDGET, Scorer, TopK, check_k, merge_top

__all__ = [
    "DEFAULT_DAMPING",
    "MEMORY_BUDGET",
    "WEIGHTINGS",
    "Best",
    "Damping",
    "Scorer",
    "TopK",
    "check_k",
    "check_weighting",
    "computed",
    "gram",
    "merge_top",
    "solve",
]
