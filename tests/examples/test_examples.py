"""Every example runs on a little real data, prints the examples that its scores name, and goes on where it was.

An example is tested by naming it. It takes `--smoke` and `--output FOLDER`, keeps its features in FOLDER/features and
its checkpoints in *.pt or the like, says how far it is on stderr alone, and prints for some targets, on one line or
several, `target NUMBER` followed by `#INDEX SCORE` for its most helpful training examples and then for as many harmful
ones.
"""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from trak.attribution.results import Attribution
from trak.evaluation import GroundTruth

ROOT = Path(__file__).parents[2]
SECONDS = 600


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
    @classmethod
    def runs(cls, tmp_path_factory):
        """The folder, what two runs printed, and the folder's files and its checkpoints' times after each."""
        folder, found = tmp_path_factory.mktemp("output"), []
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
            highest, lowest = (np.argsort(sign * scores[:, target], kind="stable") for sign in (-1, 1))
            k = len(indices) // 2
            assert k >= 3
            assert indices == [*highest[:k], *lowest[:k]]
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


class TestCIFAR10(ExampleCase):
    script, pictures = "cifar10.py", ("attributions.png",)

    @staticmethod
    def before(folder):
        out = run("cifar10.py", folder, "--minutes", "0")
        assert "next comes training checkpoint1" in out
        assert [path.name for path in folder.glob("*.pt")] == ["checkpoint0.pt"]

    def test_prints_the_lds_of_its_scores_for_one_checkpoint_and_for_all(self, runs):
        folder, (out, *_), _ = runs
        truth = GroundTruth.open(folder / "retrained")
        assert truth.outputs.shape == (3, 2, 50)
        rows = re.findall(r"^\| (\d+) \| (\S+) \((\S+) to (\S+)\) \| (\S+) \|$", out, flags=re.MULTILINE)
        assert [int(row[0]) for row in rows] == [1, 2]
        for count, *figures in rows:
            scores = Attribution.open(folder / "features", model_ids=range(int(count))).scores
            predicted, mean, low, high = truth.masks.astype(float) @ scores, *map(float, figures[:3])
            found = [spearmanr(predicted[:, i], truth.outputs.mean(axis=1)[:, i])[0] for i in range(50)]
            assert mean == pytest.approx(np.mean(found), abs=6e-4)
            assert low <= mean <= high


class TestImageNet(ExampleCase):
    script, pictures = "imagenet.py", ("targets.png",)


class TestQNLI(ExampleCase):
    script = "qnli.py"


class TestClipCoco(ExampleCase):
    script, pictures = "clip_coco.py", ("attributions.png",)

    def test_the_helpful_pairs_mostly_show_the_digit_of_the_query(self, runs):
        blocks = re.split(r"^target ", runs[1][0], flags=re.MULTILINE)[1:]
        digits = [re.findall("zero|one|two|three|four|five|six|seven|eight|nine", block)[:6] for block in blocks]
        assert np.mean([other == query for query, *others in digits for other in others]) > 0.5  # a tenth by chance


class TestAnalysis(ExampleCase):
    script, pictures = "analysis.py", ("analysis.png",)

    def test_finds_labels_that_are_wrong(self, runs):
        found, wrong = re.search(r"(\d+) of the (\d+) wrong ones are among them", runs[1][0]).groups()
        assert wrong == "15"
        assert int(found) > 5  # one by chance


class TestFactTracing(ExampleCase):
    script = "fact_tracing.py"

    def test_mrr_is_that_of_the_first_sentences_that_state_each_fact(self, runs):
        folder, (out, *_), _ = runs
        abstracts, queries = (lines(folder / "data" / f"{name}.jsonl") for name in ("abstracts", "queries"))
        scores, found = Attribution.open(folder / "features").scores, []
        for column, i in enumerate(np.random.default_rng(0).permutation(len(queries))):
            fact = [queries[i][key] for key in ("predicate_id", "obj_uri", "sub_uri")]
            order = np.argsort(-scores[:, column])
            found.append(1 + next(r for r, row in enumerate(order) if abstracts[row]["facts"] == ",".join(fact)))
        assert f"| TRAK | {np.mean(1 / np.array(found)):.3f} " in out

    def test_trak_finds_the_sentences_that_state_a_fact(self, runs):
        found = re.findall(r"^\| (\w+) \| (\d\.\d+) ", runs[1][0], flags=re.MULTILINE)
        assert [name for name, _ in found] == ["TRAK", "TracIn", "BM25"]
        assert float(found[0][1]) > 0.3  # below 0.05 by chance


class TestLanguageModel(ExampleCase):
    script, checkpoints = "language_model.py", "*.safetensors"

    def test_each_token_of_an_answer_is_a_target(self, runs):
        said = {}
        for prompt, what in re.findall(r"^target \d+: ('.*?'): (.*)$", runs[1][0], flags=re.MULTILINE):
            said.setdefault(prompt, []).append(ast.literal_eval(what.removeprefix("its token ")))
        for answer, *tokens in said.values():
            assert answer == "".join(tokens) != ""


@pytest.fixture
def example(monkeypatch):
    """Imports an example as a module."""
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_image_gets_the_first_of_its_captions(example, tmp_path):
    notes = [
        {"image_id": 7, "caption": "a cat\n"},
        {"image_id": 8, "caption": "a dog"},
        {"image_id": 7, "caption": "no"},
    ]
    images = [{"id": 8, "file_name": "8.jpg"}, {"id": 9, "file_name": "9.jpg"}, {"id": 7, "file_name": "7.jpg"}]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}))
    pairs = example("clip_coco").read(tmp_path, tmp_path / "captions.json")
    assert pairs == [(tmp_path / "8.jpg", "a dog"), (tmp_path / "7.jpg", "a cat")]


def test_an_abstract_states_the_facts_that_it_lists(example):
    abstracts = [{"facts": "P361,Q48,Q771405;P30,Q48,Q771405"}, {"facts": "P30,Q48,Q1"}]
    query = {"predicate_id": "P30", "obj_uri": "Q48", "sub_uri": "Q771405"}
    assert example("fact_tracing").stated(abstracts, [query]).tolist() == [[True], [False]]


def test_an_answer_fills_its_blank(example):
    row = {"inputs_pretokenized": "It lies in <extra_id_0> .", "targets_pretokenized": "<extra_id_0> South Asia"}
    assert example("fact_tracing").filled(row) == "It lies in South Asia ."


def test_says_what_to_do_where_ftrace_cannot_be_loaded(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SystemExit, match=r"pip install datasets.*abstracts.*queries.*--data"):
        example("fact_tracing").load(None)


def test_a_corpus_is_texts_one_after_the_other_each_with_its_end(example):
    class Tokenizer:
        eos_token_id = 0

        def __call__(self, text):
            return {"input_ids": [int(word) for word in text.split()]}

    cut = example("language_model").cut
    assert cut(["1 2 3", "4", "5 6"], Tokenizer(), 4, 10).tolist() == [[1, 2, 3, 0], [4, 0, 5, 6]]
    assert cut(["1 2 3", "4", "5 6"], Tokenizer(), 2, 3).tolist() == [[1, 2], [3, 0], [4, 0]]
    with pytest.raises(SystemExit, match="has 9 tokens, too few for a sequence of 10"):
        cut(["1 2 3", "4", "5 6"], Tokenizer(), 10, 10)


def test_a_corpus_is_read_from_lines_and_from_paragraphs(example, tmp_path):
    read = example("language_model").read
    (tmp_path / "a.jsonl").write_text('{"text": "one\\n\\ntwo"}\n{"text": "three"}\n')
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\n\nthree\n")
    assert read(str(tmp_path / "a.jsonl")) == ["one\n\ntwo", "three"]
    assert read(str(tmp_path / "a.txt")) == ["one\ntwo", "three"]


def test_costs_are_ratios_to_training_steps_which_do_not_count(example, monkeypatch):
    cost, clock = example("cost"), [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])

    def takes(seconds):
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    found = cost.Cost()
    takes(5.0)()
    for seconds in (3.0, 4.0, 6.0):
        found.compare(takes(seconds), takes(2.0), examples=2)
    assert found.report(6) == (
        "a training step (forward and backward) takes 1 s an example; featurizing 2.00 times that (1.50 to 3.00 in 3 "
        "rounds), with targets and all that is done once 3.00 times"
    )
