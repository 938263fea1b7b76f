"""Scoring settings belong to the experiment: whoever opens it gets the scores of `trak.attribute`."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from models import vectors

import trak
from trak.cli import main
from trak.scoring import Damping, ScoringConfig
from trak.scoring.auto_damping import FEWEST_TARGETS
from trak.store import StoreError, open_store

SETTINGS = {
    "defaults": {},
    "damping": {"damping": 0.3},
    "absolute damping": {"lambda_reg": 0.02},
    "weighting": {"weighting": "identity"},
    "no normalisation": {"normalize_checkpoints": False},
    "loss temperature": {"loss_temperature": 1.0},
    "all": {"damping": 30.0, "weighting": "identity", "normalize_checkpoints": False, "loss_temperature": 8.0},
}
K = 5


def attribute(folder, targets=9, checkpoints=2, **settings):
    case = vectors(40)
    states = [vectors(seed=seed).model.state_dict() for seed in range(checkpoints)]
    asked = vectors(targets, seed=7).batches
    return trak.attribute(
        case.model, case.task, states, case.batches, asked, folder, proj_dim=32, progress=False, **settings
    )


def from_command_line(folder, capsys, *options):
    assert main(["top", str(folder), "-k", str(K), "--json", *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    return [row["indices"] for row in rows], [row["scores"] for row in rows]


def from_report(folder, tmp_path, *options):
    page = tmp_path / "report.html"
    assert main(["report", str(folder), "-k", str(K), "-o", str(page), *options]) == 0
    (data,) = re.findall(r'<script[^>]* id="data">(.*?)</script', page.read_text(encoding="utf-8"), re.DOTALL)
    rows = [row["up"] for row in json.loads(data)["targets"]]
    return [row["indices"] for row in rows], [row["scores"] for row in rows]


@pytest.mark.parametrize("name", SETTINGS)
def test_python_open_command_line_and_report_agree_number_by_number(name, tmp_path, capsys):
    folder = tmp_path / "store"
    found = attribute(folder, **SETTINGS[name])
    indices, scores = found.top(K)
    opened = trak.Attribution.open(folder)
    np.testing.assert_array_equal(opened.top(K).indices, indices)
    np.testing.assert_array_equal(opened.top(K).scores, scores)
    np.testing.assert_array_equal(opened.scores, found.scores)
    assert repr(opened) == repr(found)
    for others in (from_command_line(folder, capsys), from_report(folder, tmp_path)):
        assert others[0] == indices.tolist()
        np.testing.assert_array_equal(np.float32(others[1]), scores)


def test_settings_change_the_scores_of_these_models(tmp_path):
    found = {name: attribute(tmp_path / name, **settings).scores for name, settings in SETTINGS.items()}
    for name, scores in found.items():
        assert name == "defaults" or not np.allclose(scores, found["defaults"], rtol=1e-3)


def test_open_and_the_command_line_override_what_is_recorded(tmp_path, capsys):
    given = attribute(tmp_path / "given", damping=0.3, normalize_checkpoints=False)
    plain = attribute(tmp_path / "plain")
    opened = trak.Attribution.open(tmp_path / "given", damping="auto", normalize_checkpoints=True)
    np.testing.assert_array_equal(opened.scores, plain.scores)
    overridden = from_command_line(tmp_path / "given", capsys, "--damping", "auto", "--normalize-checkpoints")
    assert overridden[0] == plain.top(K).indices.tolist()
    absolute = from_command_line(tmp_path / "plain", capsys, "--lambda-reg", "0.02")
    expected = trak.Attribution.open(tmp_path / "plain", lambda_reg=0.02).top(K)
    assert absolute[0] == expected.indices.tolist()
    np.testing.assert_array_equal(trak.Attribution.open(tmp_path / "given").scores, given.scores)


def test_the_last_attribution_decides_what_is_recorded(tmp_path):
    attribute(tmp_path, damping=0.3)
    assert trak.Attribution.open(tmp_path).damping == Damping(0.3)
    attribute(tmp_path, damping=7.0)
    assert trak.Attribution.open(tmp_path).damping == Damping(7.0)


def test_the_checkpoints_of_an_attribution_are_recorded(tmp_path):
    attribute(tmp_path, checkpoints=2)
    one = attribute(tmp_path, checkpoints=1)
    opened = trak.Attribution.open(tmp_path)
    assert opened.model_ids == [0]
    np.testing.assert_array_equal(opened.scores, one.scores)
    assert trak.Attribution.open(tmp_path, model_ids=[0, 1]).model_ids == [0, 1]


def test_repr_shows_the_settings_in_force(tmp_path):
    shown = repr(attribute(tmp_path / "a", damping=0.25, weighting="identity", normalize_checkpoints=False))
    assert "weighting=identity, damping=0.25, loss_temperature=3, normalize_checkpoints=False" in shown
    assert "damping=3 (auto)" in repr(attribute(tmp_path / "b"))
    assert "lambda_reg=0.5" in repr(attribute(tmp_path / "c", lambda_reg=0.5))


def test_auto_is_settled_once_and_every_process_uses_the_recorded_value(tmp_path):
    found = attribute(tmp_path, targets=FEWEST_TARGETS)
    (record,) = (tmp_path / "experiments" / "targets" / "damping").glob("*/zarr.json")
    # Another value than any process would choose: what is recorded counts.
    metadata = json.loads(record.read_text())
    assert metadata["attributes"]["value"] == found.damping.value
    metadata["attributes"]["value"] = 1.75
    record.write_text(json.dumps(metadata))
    program = (
        "import sys, trak; a = trak.Attribution.open(sys.argv[1]); print(a.damping.value); print(a); "
        "print(a.describe()['damping from'])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True)
    value, shown, why = done.stdout.splitlines()
    assert float(value) == 1.75
    assert "damping=1.75 (auto)" in shown
    assert why == metadata["attributes"]["why"]


def test_other_targets_settle_auto_again(tmp_path):
    attribute(tmp_path, targets=9)
    case = vectors(40)
    states = [vectors(seed=seed).model.state_dict() for seed in range(2)]
    with pytest.warns(UserWarning, match="which it replaces"):
        trak.attribute(
            case.model, case.task, states, case.batches, vectors(9, seed=8).batches, tmp_path, proj_dim=32,
            progress=False,
        )  # fmt: skip
    assert len([*(tmp_path / "experiments" / "targets" / "damping").glob("*/zarr.json")]) == 1


@pytest.mark.parametrize(
    "change", [{"damping": "much"}, {"damping": -1.0}, {"weighting": "W"}, {"model_ids": ["0"]}, {"model_ids": 3}]
)
def test_damaged_settings_are_an_error(tmp_path, change):
    attribute(tmp_path)
    record = tmp_path / "experiments" / "targets" / "scoring" / "zarr.json"
    metadata = json.loads(record.read_text())
    metadata["attributes"].update(change)
    record.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="scoring"):
        trak.Attribution.open(tmp_path)


def test_a_store_without_recorded_settings_is_scored_by_the_defaults(tmp_path):
    found = attribute(tmp_path)
    experiment = open_store(tmp_path, writable=True).experiment("targets")
    experiment.record_scoring({})
    np.testing.assert_array_equal(trak.Attribution.open(tmp_path).scores, found.scores)
    assert trak.Attribution.open(tmp_path).scoring == ScoringConfig()
