"""Training again on parts of the training set: in parallel, resumable, nothing twice."""

from trak.evaluation.retraining.measure import Train
from trak.evaluation.retraining.retrain import Retrained, Retrainer, RetrainingError, retrain_on, stored
from trak.evaluation.retraining.runs import Run, random_subset, runs_without, subset_runs, training_seed
from trak.evaluation.retraining.store import ModelStore, RetrainingConfig

__all__ = [
    "ModelStore",
    "Retrained",
    "Retrainer",
    "RetrainingConfig",
    "RetrainingError",
    "Run",
    "Train",
    "random_subset",
    "retrain_on",
    "runs_without",
    "stored",
    "subset_runs",
    "training_seed",
]
