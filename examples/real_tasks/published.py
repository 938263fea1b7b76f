"""What the published package, traker 0.3.2, gives on the same checkpoints, in a process of its own."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from real_tasks.base import CACHE, RealTask
from trak.attribution.results import ArrayAttribution, Attribution

PACKAGE = "traker==0.3.2"


def traker_scores(task: RealTask, checkpoints: list[Any], **options: Any) -> Attribution:
    """Scores (n, m); options are those of its TRAKer.

    Raises:
        subprocess.CalledProcessError: if it can't be installed or fails.
    """
    package = CACHE / PACKAGE
    if not package.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(package), PACKAGE]
        subprocess.run(command, check=True)  # noqa: S603
    with tempfile.TemporaryDirectory() as folder:
        work = {
            "model": task.make(), "task": task.task, "checkpoints": checkpoints, "options": options,
            "train": task.batches(task.labels), "targets": task.targets,
        }  # fmt: skip
        torch.save(work, Path(folder) / "work.pt")
        command = [sys.executable, str(Path(__file__).with_name("published_runner.py")), folder]
        environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)  # noqa: S603
        return ArrayAttribution(np.load(Path(folder) / "scores.npy"), "traker")
