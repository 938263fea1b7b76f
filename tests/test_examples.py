"""Every example runs on a little real data, prints the examples that its scores name, and goes on where it was.

An example is tested by naming it. It takes `--smoke` and `--output FOLDER`, keeps its features in FOLDER/features and its
checkpoints in files of their own (*.pt), says how far it is on stderr alone, and prints for some targets, on one line or several,
`target NUMBER` followed by `#INDEX SCORE` for its most helpful training examples and then for as many harmful ones.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trak.attribution import Attribution

ROOT = Path(__file__).parents[1]
SECONDS = 300


def run(script, folder, *options):
    """What a smoke run prints."""
    command = [sys.executable, str(ROOT / "examples" / script), "--smoke", "--output", str(folder), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def printed(out):
    """(target, indices, scores) of each target that is printed."""
    for block in re.split(r"^target ", out, flags=re.MULTILINE)[1:]:
        found = re.findall(r"#(\d+) ([+-]\d\S*)", block)
        yield int(re.match(r"\d+", block)[0]), [int(i) for i, _ in found], [float(score) for _, score in found]


def files(folder):
    """Every file's bytes, by name."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class ExampleCase:
    """What every example promises."""

    script: str
    pictures: tuple[str, ...] = ()
    checkpoints = "*.pt"

    @staticmethod
    def before(folder):
        """What happens in the folder before the first run to the end."""

    @pytest.fixture(scope="class")
    def runs(self, request, tmp_path_factory):
        """The folder, what two runs printed, and the folder's files and its checkpoints' times after each."""
        cls, folder, found = request.cls, tmp_path_factory.mktemp("output"), []
        cls.before(folder)
        for _ in range(2):
            out = run(cls.script, folder)
            found.append((out, files(folder), {path: path.stat().st_mtime_ns for path in folder.rglob(cls.checkpoints)}))
        return folder, *found

    def test_prints_the_highest_and_the_lowest_scores_of_its_targets(self, runs):
        folder, (out, *_), _ = runs
        scores = Attribution.open(folder / "features").scores
        targets = list(printed(out))
        assert targets
        for target, indices, values in targets:
            order, k = np.argsort(-scores[:, target], kind="stable"), len(indices) // 2
            assert k >= 3
            assert indices == [*order[:k], *order[::-1][:k]]
            np.testing.assert_allclose(values, scores[indices, target], rtol=0.06)  # two digits are printed

    def test_draws_its_pictures(self, runs):
        from matplotlib.image import imread

        for name in self.pictures:
            assert imread(runs[0] / name).std() > 0.02

    def test_a_second_run_trains_nothing_and_ends_the_same(self, runs):
        _, (out, found, trained), (again, left, times) = runs
        assert trained
        assert times == trained
        assert again == out
        assert left == found
