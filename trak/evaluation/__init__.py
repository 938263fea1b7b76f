"""How far the scores can be trusted.

Compare with models retrained on random subsets (`retrain`): `lds`. Remove the examples that a method calls helpful:
`counterfactuals`. Compare with what is known of the data: `mislabel_detection` (of `self_influence` or `harm_scores`),
`retrieval`. Compare with another method, or another seed of the same: `agreement`. Every result prints as a line,
becomes a table by `to_frame()` and draws itself by `plot()`.
"""

from trak.evaluation.counterfactual_retraining import Counterfactuals, counterfactuals
from trak.evaluation.ground_truth import GroundTruth, retrain
from trak.evaluation.label_issue_scores import harm_scores, self_influence
from trak.evaluation.linear_datamodeling_score import LDS, lds
from trak.evaluation.mislabel_metrics import MislabelDetection, mislabel_detection
from trak.evaluation.rank_agreement import Agreement, agreement
from trak.evaluation.retraining import Retrained, RetrainingError, TrainingRun, retrain_on
from trak.evaluation.retrieval_metrics import Retrieval, retrieval
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
    "harm_scores",
    "lds",
    "mislabel_detection",
    "retrain",
    "retrain_on",
    "retrieval",
    "self_influence",
]
