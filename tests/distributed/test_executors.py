"""Executors: who does which job, and that a cluster's workers compute what one process does."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

import trak
import trak.distributed.executors
from trak.attribution.results import StoredAttribution
from trak.distributed import Ray, RayExecutor, SharingExecutor, SubsetExecutor
from trak.store import RowLocks, SerialExecutor


@pytest.mark.parametrize("executor", [SerialExecutor(), SharingExecutor(RowLocks(None))])
def test_each_job_that_is_not_done_is_done_once(executor):
    done, calls = {1}, []

    def compute(number):
        calls.append(number)
        done.add(number)

    executor.run("jobs", [0, 1, 2, 5], done.__contains__, compute)
    assert sorted(calls) == [0, 2, 5]
    SubsetExecutor([7, 8, 2], executor).run("jobs", [7, 8, 9], done.__contains__, compute)
    assert sorted(calls) == [0, 2, 5, 7, 8]


class Pool:
    """A cluster of two workers that are this process; what is sent to them is pickled."""

    tasks = 0

    def __init__(self, engine):
        self._tasks = []

    def slots(self):
        return 2

    def put(self, value):
        return pickle.dumps(value)

    def add(self, key, function, sent, *arguments):
        self._tasks.append((key, function, sent, arguments))

    def __iter__(self):
        for key, function, sent, arguments in reversed(self._tasks):
            Pool.tasks += 1
            yield key, function(pickle.loads(sent), *arguments)


def test_workers_of_a_cluster_compute_the_scores_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr("trak.store.table.CHUNK_BYTES", 4 * 8 * 4)
    torch.manual_seed(0)
    data = [(torch.randn(23, 5), torch.arange(23) % 3)]
    model = nn.Linear(5, 3)
    states = [{name: torch.randn_like(value) for name, value in model.state_dict().items()} for _ in range(2)]

    def attribution(name):
        return trak.attribute(
            model, "image_classification", states, data, data, tmp_path / name, proj_dim=8, progress=False, device="cpu"
        )

    alone, other = attribution("alone"), attribution("cluster")
    monkeypatch.setattr(trak.distributed.executors, "Pool", Pool)
    many = StoredAttribution(other.experiment, engine=Ray())
    for bottom in (False, True):
        expected, found = alone.top(7, bottom), many.top(7, bottom)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(many.scores, alone.scores)
    assert Pool.tasks > 6


def test_jobs_that_a_cluster_left_are_done_here(monkeypatch):
    monkeypatch.setattr(trak.distributed.executors, "Pool", Pool)
    done = set()
    executor = RayExecutor(Ray(), len, SerialExecutor())
    executor.run("jobs", [3, 4], done.__contains__, done.add)
    assert done == {3, 4}
