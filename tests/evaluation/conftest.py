"""Fixtures of evaluation's tests."""

import numpy as np
import pytest
from retraining_case import BATCHES, CONFIG, N, logistic

from trak.evaluation import retrain, retrain_on


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 6))
    # Of one size: outputs that follow the size alone would reward scores that know nothing.
    masks = rng.permuted(np.arange(40) < np.full((60, 1), 20), axis=1)
    return scores, masks, (masks @ scores)[:, None, :] + 2 * rng.normal(size=(60, 3, 6))


@pytest.fixture
def call(tmp_path):
    def call(train=logistic, targets=BATCHES, task="image_classification", **options):
        options = {
            "train_set_size": N, "save_dir": tmp_path / "truth", "subsets": 5, "seeds": 2, "jobs": 1,
            "progress": False, "config": CONFIG, **options,
        }  # fmt: skip
        return retrain(train, task, targets, **options)

    return call


@pytest.fixture
def run_on(tmp_path):
    def run_on(runs, train=logistic, **options):
        options = {"train_set_size": N, "save_dir": tmp_path / "runs", "jobs": 1, "progress": False, **options}
        return retrain_on(runs, train, "image_classification", options.pop("targets", BATCHES), **options)

    return run_on
