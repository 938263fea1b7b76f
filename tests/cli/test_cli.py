"""trak: what commands print and write."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from models import images

import trak
from trak.cli import main


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    model, task, batches = images()
    path = tmp_path_factory.mktemp("store")
    trak.attribute(model, task, model.state_dict(), batches, batches[:1], path, proj_dim=16, progress=False)
    return path


def test_top_prints_what_top_finds(stored, capsys):
    assert main(["top", str(stored), "--targets", "1", "0", "-k", "3", "--bottom", "--json"]) == 0
    found, top = json.loads(capsys.readouterr().out), trak.Attribution.open(stored).top(3, bottom=True)
    assert [row["target"] for row in found] == [1, 0]
    for row in found:
        assert row["indices"] == top.indices[row["target"]].tolist()
        assert row["scores"] == pytest.approx(top.scores[row["target"]].tolist())
    assert main(["top", str(stored), "--targets", "1", "-k", "1", "--damping", "0.5"]) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    best = trak.Attribution.open(stored, damping=0.5).top(1)
    assert line.split() == ["1", "1", str(best.indices[1, 0]), f"{best.scores[1, 0]:+.4g}"]


def test_top_names_the_labels_of_the_same_file_as_report(stored, tmp_path, capsys):
    path, train = tmp_path / "labels.json", [i % 2 for i in range(23)]
    count = trak.Attribution.open(stored).shape[1]
    labels = {"train": train, "targets": [1] * count, "predicted": [0] * count, "names": ["cat", "dog"]}
    path.write_text(json.dumps(labels))
    arguments = ["top", str(stored), "--labels", str(path), "--targets", "1", "-k", "3"]
    assert main([*arguments, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["labels"] == [labels["names"][train[i]] for i in found["indices"]]
    assert (found["label"], found["predicted"]) == ("dog", "cat")
    assert main(arguments) == 0
    _, of, *lines = capsys.readouterr().out.splitlines()
    assert of.split(maxsplit=1) == ["1", "label dog, predicted cat"]
    assert [line.split()[-1] for line in lines] == found["labels"]


def test_plan_takes_what_a_store_knows_and_options_go_before_it(stored, capsys):
    def planned(*arguments):
        assert main(["plan", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    known = trak.Attribution.open(stored).experiment.store.config
    parameters = sum(p.numel() for p in images()[0].parameters())
    given = "--examples", "23", "--params", str(parameters), "--k", "16", "--dtype", known.dtype
    assert planned(str(stored)) == planned(*given)
    assert planned(str(stored), "--examples", "1e6", "--k", "32")["work"]["examples"] == 1e6
    assert main(["plan", "--examples", "23"]) == 1
    assert "--params is missing" in capsys.readouterr().err


def test_a_plan_beyond_all_numbers_is_no_json(capsys):
    assert main(["plan", "--examples", "1e300", "--params", "1e300", "--json"]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert "1e+300 examples and 1e+300 params cost more than numbers can tell" in printed.err


@pytest.mark.parametrize(
    ("label", "status", "said"),
    [
        (1.0, 0, "dog"),
        (0.5, 1, "no name for the label 0.5"),
        (-1, 1, "no name for the label -1"),
        ([1], 1, "label [1]"),
    ],
)
@pytest.mark.parametrize("command", ["top", "report"])
def test_labels_of_any_type_are_named_or_refused_in_one_line(stored, tmp_path, capsys, command, label, status, said):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"train": [label] * 23, "names": ["cat", "dog"]}))
    page = ["-o", str(tmp_path / "a.html")] if command == "report" else []
    assert main([command, str(stored), "--labels", str(path), *page]) == status
    printed = capsys.readouterr()
    found = printed.err if status else printed.out if command == "top" else (tmp_path / "a.html").read_text()
    assert said in found
    assert not status or len(printed.err.splitlines()) == 1


def test_info_prints_json(stored, capsys):
    assert main(["info", str(stored), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["configuration"]["train_set_size"] == 23


def test_report_writes_what_the_method_writes(stored, tmp_path, capsys):
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"train": [0, 1] * 11 + [0], "names": ["cat", "dog"]}))
    output = tmp_path / "report.html"
    assert main(["report", str(stored), "--output", str(output), "--labels", str(labels), "-k", "4"]) == 0
    assert str(output) in capsys.readouterr().out
    trak.Attribution.open(stored).report(
        tmp_path / "own.html", k=4, train_labels=[0, 1] * 11 + [0], label_names=["cat", "dog"]
    )
    assert output.read_bytes() == (tmp_path / "own.html").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "no JSON"),
        ("[]", "must hold an object with any of train, targets, predicted, names, got a list"),
        ('{"test": []}', "has 'test'; expected any of"),
        ('{"train": 3}', "train in .* must be a list, got a int"),
        ('{"train": [3]}', "1 labels for 23 examples"),
    ],
)
def test_labels_that_can_not_be_used_are_refused(stored, tmp_path, capsys, content, message):
    (tmp_path / "labels.json").write_text(content)
    arguments = ["report", str(stored), "-o", str(tmp_path / "a.html"), "--labels", str(tmp_path / "labels.json")]
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("trak: ")
    assert re.search(message, printed)
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("arguments", [["top", "nowhere"], ["info", "nowhere"], ["report", "nowhere"]])
def test_what_is_not_there_is_an_error_in_one_line(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("trak: ")
    assert "nowhere" in printed.err
    assert not printed.out
    assert not list(tmp_path.iterdir())


def test_the_command_trak_is_what_the_module_runs():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["trak"].partition(":")
    assert getattr(sys.modules[module], name) is main
    # The call of an installed script, and the module.
    script = ["-c", f"import sys; sys.argv[0] = 'trak'; from {module} import {name}; sys.exit({name}())"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = [
        subprocess.run(
            [sys.executable, *start, "--help"], capture_output=True, text=True, check=True, env=environment
        ).stdout
        for start in (script, ["-m", "trak"])
    ]
    assert printed[0] == printed[1]
    assert printed[0].startswith("usage: trak ")


@pytest.mark.parametrize("command", ["info", "top", "report", "repair", "plan"])
def test_help_shows_examples_and_json(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert f"trak {command} {'--examples' if command == 'plan' else 'results'}" in printed.split("examples:")[-1]
    assert "--json" in printed


def test_every_command_prints_the_same_as_json(stored, tmp_path, capsys):
    def printed(*arguments):
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    page = tmp_path / "report.html"
    assert printed("report", str(stored), "-o", str(page)) == {"path": str(page), "bytes": page.stat().st_size}
    assert printed("info", str(stored), "--missing") == []
    assert printed("info", str(stored), "--missing", "--checkpoints", "2") == [[0, 23]]
    assert printed("repair", str(stored)) == []
    assert printed("plan", "--examples", "1e6", "--params", "1e6")["work"]["examples"] == 1e6


def test_info_says_that_nothing_is_missing_beside_what_scripts_read(stored, capsys):
    assert main(["info", str(stored), "--missing"]) == 0
    assert tuple(capsys.readouterr()) == ("\n", "trak: nothing is missing\n")
    assert main(["info", str(stored), "--missing", "--checkpoints", "2"]) == 0
    assert tuple(capsys.readouterr()) == ("0-22\n", "")


@pytest.mark.parametrize("command", [["top"], ["report", "-o", "report.html"]])
def test_a_checkpoint_that_is_not_finished_is_named_beside_the_answer(command, stored, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command.insert(1, str(shutil.copytree(stored, tmp_path / "store")))
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    trak.store.open_store(tmp_path / "store", writable=True).add_checkpoint(1, "ab")
    assert main(command) == 0
    assert "by 1 of 2 checkpoints; model_ids [1] have not featurized the targets" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["store", "run-0/store"])
def test_a_folder_of_runs_names_the_store_in_it(below, tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 1
    assert "there is one at" not in capsys.readouterr().err
    (tmp_path / below).mkdir(parents=True)
    (tmp_path / below / "zarr.json").touch()
    assert main(["info", str(tmp_path)]) == 1
    assert f"there is one at {tmp_path / below}" in capsys.readouterr().err
