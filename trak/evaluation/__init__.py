"""How far the scores can be believed."""

from trak.evaluation.lds import LDS, lds
from trak.evaluation.retraining import RetrainingError, retrain_on
from trak.evaluation.truth import GroundTruth, retrain

__all__ = ["LDS", "GroundTruth", "RetrainingError", "lds", "retrain", "retrain_on"]
