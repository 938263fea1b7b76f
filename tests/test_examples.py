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
            found.append(
                (out, files(folder), {path: path.stat().st_mtime_ns for path in folder.rglob(cls.checkpoints)})
            )
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


class TestClipCoco(ExampleCase):
    script, pictures = "clip_coco.py", ("attributions.png",)

    def test_the_helpful_pairs_show_the_digit_of_the_query(self, runs):
        _, (out, *_), _ = runs
        for block in re.split(r"^target ", out, flags=re.MULTILINE)[1:]:
            query, *found = (re.search(DIGIT, line)[0] for line in block.splitlines() if re.search(DIGIT, line))
            assert found[:3].count(query) >= 2


class TestFactTracing(ExampleCase):
    script = "fact_tracing.py"

    def test_ranks_are_those_of_the_sentences_that_state_the_fact(self, runs):
        folder, (out, *_), _ = runs
        rows = {name: read_lines(folder / "data" / f"{name}.jsonl") for name in ("abstracts", "queries")}
        asked = [",".join(q[key] for key in ("predicate_id", "obj_uri", "sub_uri")) for q in rows["queries"]]
        asked = [asked[i] for i in np.random.default_rng(0).permutation(len(asked))]
        scores = Attribution.open(folder / "features").scores
        order = np.argsort(-scores, axis=0)
        ranks = [
            next(r for r, i in enumerate(o, 1) if rows["abstracts"][i]["facts"] == q) for o, q in zip(order.T, asked)
        ]
        assert f"| TRAK | {np.mean(1 / np.array(ranks)):.3f} " in out

    def test_trak_finds_the_sentences_that_state_a_fact(self, runs):
        found = {name: float(mrr) for name, mrr in re.findall(r"^\| (\w+) \| (\d\.\d+)", runs[1][0], re.MULTILINE)}
        assert found.keys() == {"TRAK", "TracIn", "BM25"}
        assert found["TRAK"] > 0.3  # random: below 0.05

    def test_says_what_to_do_without_the_hub(self, tmp_path):
        done = start("fact_tracing.py", tmp_path, HF_HUB_OFFLINE="1", smoke=False)
        assert done.returncode == 1
        assert "--data" in done.stderr.splitlines()[-1]


class TestLanguageModel(ExampleCase):
    script, checkpoints = "language_model.py", "*.safetensors"

    def test_sequences_that_hold_the_answer_come_first(self, runs):
        _, (out, *_), _ = runs
        for block in re.split(r"^target ", out, flags=re.MULTILINE)[1:]:
            prompt = re.match(r"\d+: '(.*?)'", block)[1]
            if "its token" not in block:
                assert prompt in re.findall(r"#\d+ \S+ (.*)", block)[0]

    def test_tokens_are_those_of_the_answer(self, runs):
        for answer, tokens in answers(runs[1][0]):
            assert "".join(tokens) == answer

    def test_says_what_it_cost(self, tmp_path):
        assert "peak memory" in start("language_model.py", tmp_path).stderr
