"""Training again on parts of the training set: in parallel, resumable, nothing twice."""

from trak.evaluation.retraining.retrainer import Retrained, Retrainer, RetrainingError, read_models, retrain_on
from trak.evaluation.retraining.run_store import ModelStore, RetrainingConfig
from trak.evaluation.retraining.runs import TrainingRun, random_subset, runs_without, subset_runs, training_seed
from trak.evaluation.retraining.training_spec import Train

__all__ = [
    "ModelStore",
    "Retrained",
    "Retrainer",
    "RetrainingConfig",
    "RetrainingError",
    "Train",
    "TrainingRun",
    "random_subset",
    "read_models",
    "retrain_on",
    "runs_without",
    "subset_runs",
    "training_seed",
]
