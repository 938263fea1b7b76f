"""How far the scores can be believed.

Against models retrained on random subsets (`retrain`): `lds`. By taking away what a method calls helpful:
`counterfactuals`. Against what is known of the data: `mislabel_detection` (with `self_influence` or `harmfulness`), `retrieval`.
Against another method, or another seed of the same: `agreement`. Every result prints as a line, becomes a table by
`to_frame()` and draws itself by `plot()`.
"""

from trak.evaluation.agreement import Agreement, agreement
from trak.evaluation.counterfactual_results import Counterfactuals
from trak.evaluation.counterfactuals import counterfactuals
from trak.evaluation.ground_truth import GroundTruth, retrain
from trak.evaluation.lds import LDS, lds
from trak.evaluation.mislabel_detection import MislabelDetection, mislabel_detection
from trak.evaluation.retraining import Retrained, RetrainingError, TrainingRun, retrain_on
from trak.evaluation.retrieval import Retrieval, retrieval
from trak.evaluation.self_influence import harmfulness, self_influence
from trak.evaluation.statistics import Interval

__all__ = [
    "LDS",
    "Agreement",
    "Counterfactuals",
    "GroundTruth",
    "Interval",
    "MislabelDetection",
    "Retrained",
    "RetrainingError",
    "Retrieval",
    "TrainingRun",
    "agreement",
    "counterfactuals",
    "harmfulness",
    "lds",
    "mislabel_detection",
    "retrain",
    "retrain_on",
    "retrieval",
    "self_influence",
]
