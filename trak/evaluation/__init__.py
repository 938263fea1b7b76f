"""How far the scores can be believed.

Against models retrained on random subsets (`retrain`): `lds`. By taking away what a method calls helpful:
`counterfactuals`. Against what is known of the data: `mislabels` (with `self_influence` or `harmfulness`), `retrieval`.
Against another method, or another seed of the same: `agreement`. Every result prints as a line, becomes a table by
`to_frame()` and draws itself by `plot()`.
"""

from trak.evaluation.agreement import Agreement, agreement
from trak.evaluation.brittleness import Counterfactuals
from trak.evaluation.counterfactuals import counterfactuals
from trak.evaluation.lds import LDS, lds
from trak.evaluation.mislabels import Mislabels, mislabels
from trak.evaluation.retraining import Retrained, RetrainingError, Run, retrain_on
from trak.evaluation.retrieval import Retrieval, retrieval
from trak.evaluation.statistics import Interval
from trak.evaluation.suspicion import harmfulness, self_influence
from trak.evaluation.truth import GroundTruth, retrain

__all__ = [
    "LDS",
    "Agreement",
    "Counterfactuals",
    "GroundTruth",
    "Interval",
    "Mislabels",
    "Retrained",
    "RetrainingError",
    "Retrieval",
    "Run",
    "agreement",
    "counterfactuals",
    "harmfulness",
    "lds",
    "mislabels",
    "retrain",
    "retrain_on",
    "retrieval",
    "self_influence",
]
