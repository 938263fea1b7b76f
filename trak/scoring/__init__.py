"""From stored features to scores."""

from trak.scoring.gram import WEIGHTINGS, check_weighting, gram
from trak.scoring.solve import DEFAULT_DAMPING, Damping, solve
from trak.scoring.stream import MEMORY_BUDGET, Scorer, TopK

__all__ = [
    "DEFAULT_DAMPING",
    "MEMORY_BUDGET",
    "WEIGHTINGS",
    "Damping",
    "Scorer",
    "TopK",
    "check_weighting",
    "gram",
    "solve",
]
