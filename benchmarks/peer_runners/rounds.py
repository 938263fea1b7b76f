"""Runs every method in a process of its own, in interleaved rounds."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from peer_runners.work import RESULT, Work, to_json
from tqdm.auto import tqdm

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Method:
    """What is timed; `slow` ones on fewer examples."""

    runner: str
    what: str
    quantity: str = ""
    requirements: tuple[str, ...] = ()
    slow: bool = True

    @property
    def environment(self) -> str:
        return self.runner.removesuffix("_fast")


@dataclass
class Job:
    """A method and its work, and what came of it in each round."""

    method: Method
    work: Work
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    error: str = ""
    took: float = 0.0

    def seconds(self) -> dict[int, float]:
        """Of each round."""
        return {i: sum(stage["seconds"] for stage in result["stages"]) for i, result in self.results.items()}

    def seconds_for(self, examples: int) -> dict[int, float]:
        """The same, with the stages that grow scaled to another number of training examples."""
        scale = examples / self.work.examples
        return {
            i: sum(stage["seconds"] * (scale if stage["grows"] else 1) for stage in result["stages"])
            for i, result in self.results.items()
        }

    def scores(self) -> np.ndarray | None:
        """Of the last round."""
        return list(self.results.values())[-1].get("scores") if self.results else None


def run(job: Job, python: Path, timeout: float | None) -> dict[str, Any]:
    """What the runner reports; whatever goes wrong is a result with an "error"."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"OMP_NUM_THREADS": str(job.work.threads), "TQDM_DISABLE": "1", "PYTHONNOUSERSITE": "1"}
    command = [str(python), "-m", f"peer_runners.{job.method.runner}", to_json(job.work)]
    try:
        done = subprocess.run(
            command, cwd=HERE, env=environment, timeout=timeout, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    found = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if not found:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        return {"error": f"exit code {done.returncode}: {said[-1][:200]}"}
    result: dict[str, Any] = json.loads(found[-1].removeprefix(RESULT))
    if "scores" in result:
        file = Path(result["scores"])
        result["scores"] = np.load(file)
        file.unlink()
    return result


def run_all(jobs: list[Job], pythons: dict[str, Path], rounds: int, budget: float, timeout: float | None) -> None:
    """The first round runs every job that has no error, the others what is expected to end within the budget."""
    start = time.perf_counter()
    for i in range(rounds):
        with tqdm(jobs, desc=f"round {i + 1}", unit="run") as bar:
            for job in bar:
                if job.error or (i > 0 and time.perf_counter() - start + job.took > budget):
                    continue
                bar.set_postfix_str(f"{job.work.model}, {job.method.runner}, {job.work.examples} examples")
                begin = time.perf_counter()
                result = run(job, pythons.get(job.method.environment, Path(sys.executable)), timeout)
                job.took, job.error = time.perf_counter() - begin, result.get("error", "")
                if not job.error:
                    job.results[i] = result
