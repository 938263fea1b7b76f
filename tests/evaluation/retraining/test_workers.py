"""Retraining in one process and in several."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from retraining_case import TARGETS, Counting, logistic

from trak.evaluation import RetrainingError
from trak.evaluation.retraining import training_seed


class TestProcesses:
    """One or several."""

    def test_any_number_of_processes_gives_the_same_bits(self, call, tmp_path):
        def own(indices, seed):  # local, so that it has to be sent by value
            assert torch.get_num_threads() == 1
            return logistic(indices, seed)

        one, two = call(own), call(own, jobs=2, save_dir=tmp_path / "two")
        np.testing.assert_array_equal(one.outputs, two.outputs)
        np.testing.assert_array_equal(one.correct, two.correct)
        np.testing.assert_array_equal(one.masks, two.masks)

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_an_exception_names_the_run_and_what_is_finished_stays(self, call, jobs):
        bad = training_seed(0, 3, 1)

        def train(indices, seed):
            if seed == bad:
                raise KeyError("no such column")
            return logistic(indices, seed)

        pattern = (
            rf"on subset 3, seed 1 \(12 training examples, training seed {bad}\) failed: KeyError: 'no such column'\. "
        )
        with pytest.raises(RetrainingError, match=pattern + "[789] of 10 models are done") as caught:
            call(train, jobs=jobs)
        if jobs == 1:
            assert isinstance(caught.value.__cause__, KeyError)
        else:
            assert "In the other process" in caught.value.__notes__[0]
            assert "in train" in caught.value.__notes__[0]
        counting = Counting()
        call(counting)
        assert 1 <= len(counting.seen) <= 3
        assert bad in [seed for _, seed in counting.seen]

    def test_a_process_that_dies_is_a_plain_error_and_what_is_finished_stays(self, call, tmp_path):
        def train(indices, seed):
            if seed == training_seed(0, 4, 1):
                while len(list((tmp_path / "truth" / "models").glob("*/c/0/0"))) < 8:
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            return logistic(indices, seed)

        with pytest.raises(RetrainingError, match=r"a process died while it trained.*fewer jobs\. [89] of 10"):
            call(train, jobs=2)
        counting = Counting()
        call(counting)
        assert 1 <= len(counting.seen) <= 2


def test_without_ray_installed_the_error_says_what_to_install(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'trak-attribution\[ray\]'"):
        call(backend="ray")


def test_one_process_needs_no_joblib_and_several_say_what_to_install(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "joblib", None)
    call()
    with pytest.raises(ImportError, match=r"pip install 'trak-attribution\[evaluation\]'"):
        call(jobs=2, save_dir=tmp_path / "two")


def test_what_can_not_be_sent_is_refused_with_the_remedy(call):
    lock = threading.Lock()

    def train(indices, seed):
        with lock:
            return logistic(indices, seed)

    with pytest.raises(TypeError, match=r"can't be sent to other processes \(TypeError: .*lock.*jobs=1"):
        call(train, jobs=2)
    assert call(train).outputs.shape == (5, 2, TARGETS)
