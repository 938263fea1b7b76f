"""Checkpoints of training runs."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from hugging_face import (
    assert_same_state,
    transformers,
)
from torch import nn

from trak.integrations.run_checkpoints import RunCheckpoints, checkpoints


def test_a_process_killed_while_it_saves_leaves_no_half_file(tmp_path):
    program = f"""
import os, signal, torch
from trak.integrations.run_checkpoints import RunCheckpoints
run, model = RunCheckpoints({str(tmp_path)!r}), torch.nn.Linear(300, 300)
run.save(model, 1)
write = torch.save
def killed(state, file):
    write(state, file)
    file.truncate(1000)
    os.kill(os.getpid(), signal.SIGKILL)
torch.save = killed
run.save(model)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob("run-0/*.pt")] == ["epoch-1.pt"]
    with pytest.raises(FileNotFoundError, match=r"no run in .* has a checkpoint final\.pt"):
        checkpoints(tmp_path)
    model, run = nn.Linear(300, 300), RunCheckpoints(tmp_path)
    run.start(resumed=True, write=True)
    assert [path.name for path in run.directory.iterdir()] == ["epoch-1.pt"]
    run.save(model)
    assert_same_state(torch.load(checkpoints(tmp_path)[0]), model.state_dict())


def test_runs_are_in_order_and_never_overwrite_each_other(tmp_path):
    model = nn.Linear(2, 2)
    for number in (10, 2, 0):
        run = RunCheckpoints(tmp_path, number)
        run.start(resumed=False, write=True)
        run.save(model)
    assert [path.parent.name for path in checkpoints(tmp_path)] == ["run-0", "run-2", "run-10"]
    with pytest.raises(FileExistsError, match=r"run 2 ended before: .* exists.* run=3 .*, or another folder"):
        RunCheckpoints(tmp_path, 2).start(resumed=False, write=True)
    RunCheckpoints(tmp_path, 2, replace=True).start(resumed=False, write=True)
    assert len(checkpoints(tmp_path)) == 2
    for wrong in ({"number": -1}, {"epochs": [0]}):
        with pytest.raises(ValueError, match=r"must be [01] or more"):
            RunCheckpoints(tmp_path, **wrong)


def test_tied_weights_are_kept_and_fit_again(tmp_path):
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    run = RunCheckpoints(tmp_path)
    run.save(model)
    state = torch.load(run.path())
    assert_same_state(state, model.state_dict())
    other = transformers.GPT2LMHeadModel(config)
    other.load_state_dict(state)
    assert other.lm_head.weight is other.transformer.wte.weight
