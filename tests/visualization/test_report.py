"""The content of the report's file."""

import base64
import hashlib
import io
import re
import time
from functools import partial

import numpy as np
import pytest
from models import images
from report_files import embedded, images_of, parts
from views import HOSTILE, attribution

import trak
import trak.visualization.report as report_module


class TestFile:
    def test_rows_are_what_top_finds(self, tmp_path):
        found = attribution()
        data = embedded(found.report(tmp_path / "a.html", targets=[2, 0], k=5))
        assert [row["id"] for row in data["targets"]] == [2, 0]
        for row in data["targets"]:
            for side, bottom in (("up", False), ("down", True)):
                top = found.top(5, bottom)
                assert row[side]["indices"] == top.indices[row["id"]].tolist()
                np.testing.assert_array_equal(np.float32(row[side]["scores"]), top.scores[row["id"]])

    def test_by_default_all_targets_with_ten_at_either_end(self, tmp_path):
        rows = embedded(attribution(30, 7).report(tmp_path / "a.html"))["targets"]
        assert len(rows) == 7
        assert all(len(row["up"]["indices"]) == len(row["down"]["indices"]) == 10 for row in rows)

    def test_every_image_is_stored_once(self, tmp_path):
        pytest.importorskip("PIL")
        images = np.random.default_rng(0).random((3, 6, 6)).repeat(4, axis=0)
        path = attribution().report(tmp_path / "a.html", images, images[:4])
        stored = images_of(path)
        assert len(stored) == len(set(stored)) == 3

    def test_images_of_all_parts_are_those_of_the_examples(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        pixels = np.random.default_rng(0).integers(0, 256, (700, 4, 4), np.uint8)
        path = attribution(700, 400).report(tmp_path / "a.html", pixels)
        assert [len(part) for part in parts(path, 'class="images"')][:-1] == [512]
        stored, train = images_of(path), embedded(path)["train"]
        assert len(train) > 600
        for index, example in train.items():
            shown = image.open(io.BytesIO(base64.b64decode(stored[example["image"]].split(",")[1])))
            np.testing.assert_array_equal(np.asarray(shown), pixels[int(index)])

    def test_images_are_no_larger_than_asked_for(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        path = attribution().report(tmp_path / "a.html", np.random.default_rng(0).random((12, 30, 60)), image_size=20)
        data = base64.b64decode(images_of(path)[0].split(",")[1])
        (tmp_path / "a").write_bytes(data)
        assert image.open(tmp_path / "a").size == (20, 10)
        for size in (0, float("inf"), float("nan")):
            with pytest.raises(ValueError, match=f"image_size must be at least 1 pixel, got {size}"):
                attribution().report(tmp_path / "b.html", image_size=size)

    def test_a_title_that_is_no_string_is_refused(self, tmp_path):
        with pytest.raises(TypeError, match="title must be a string, got None"):
            attribution().report(tmp_path / "a.html", title=None)
        assert not list(tmp_path.iterdir())

    def test_empty_examples_are_said_to_be_empty(self, tmp_path):
        data = embedded(attribution().report(tmp_path / "a.html", [("", 1)] * 12, [""] * 4))
        assert data["targets"][0]["text"] == "(empty)"
        assert all(example == {"text": "(empty)", "label": "1"} for example in data["train"].values())

    def test_a_folder_is_refused_before_any_example_is_read(self, tmp_path):
        with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file in it"):
            attribution().report(tmp_path, list("abcdefghijkl"), display=lambda example: pytest.fail("was read"))

    def test_figures_are_stored_so_that_they_can_be_read(self, tmp_path):
        plt = pytest.importorskip("matplotlib.pyplot")
        pytest.importorskip("PIL")

        def display(text):
            figure = plt.figure(figsize=(8, 4))
            figure.text(0.5, 0.5, text)
            return figure

        data = embedded(attribution().report(tmp_path / "a.html", list("abcdefghijkl"), list("abcd"), display=display))
        assert data["sizes"] == [[480, 240]] * 12
        data = embedded(attribution().report(tmp_path / "a.html", list("abcdefghijkl"), display=display, image_size=60))
        assert data["sizes"] == [[60, 30]] * 12

    def test_hostile_texts_end_no_script_and_come_back_as_they_were(self, tmp_path):
        path = attribution().report(
            tmp_path / "a.html", [HOSTILE] * 12, [HOSTILE] * 4, target_labels=[HOSTILE] * 4, title=HOSTILE
        )
        source = path.read_text()
        assert len(re.findall(r"<script", source, re.IGNORECASE)) == 3
        assert len(re.findall(r"</script", source, re.IGNORECASE)) == 3
        assert "<img" not in source
        data = embedded(path)
        assert data["title"] == data["targets"][0]["text"] == data["targets"][0]["label"] == HOSTILE

    def test_what_is_no_utf8_is_replaced_in_titles_and_labels(self, tmp_path):
        path = attribution().report(tmp_path / "a.html", target_labels=["\ud800"] * 4, title="\ud800")
        assert "<title>\ufffd" in path.read_text(encoding="utf-8")

    def test_nothing_is_fetched_and_nothing_runs_but_its_own_script(self, tmp_path):
        source = attribution().report(tmp_path / "a.html").read_text()
        assert "http://" not in source
        assert "https://" not in source
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source)[1]
        assert policy.startswith("default-src 'none'; img-src data:;")
        for tag in ("style", "script"):
            body = re.search(rf"<{tag}>(.*?)</{tag}>", source, re.DOTALL)[1]
            digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy

    def test_the_same_attribution_gives_the_same_bytes(self, tmp_path):
        texts = [f"train {i}" for i in range(12)]
        first = attribution().report(tmp_path / "a.html", texts).read_bytes()
        assert attribution().report(tmp_path / "b.html", texts).read_bytes() == first

    def test_progress_is_told_where_reading_takes_long(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(report_module, "tqdm", partial(report_module.tqdm, mininterval=0))
        monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
        attribution().report(tmp_path / "a.html", list("abcdefghijkl"))
        assert "target" not in capsys.readouterr().err
        attribution().report(tmp_path / "a.html", list("abcdefghijkl"), display=lambda text: time.sleep(0.15) or text)
        assert re.search(r"reading examples.*\d/4.*target", capsys.readouterr().err)

    def test_what_the_output_is_and_what_settings_mean_is_said_in_plain_words(self, tmp_path):
        model, task, batches = images()
        options = {"proj_dim": 16, "progress": False}
        found = trak.attribute(model, task, model.state_dict(), batches, batches[:1], tmp_path / "s", **options)
        data = embedded(found.report(tmp_path / "a.html", k=2))
        assert "Output: log-odds of the labelled class, log(p / (1 − p))." in data["meaning"]
        assert {"damping", "loss_temperature", "normalize_checkpoints", "weighting", "projector"} <= data[
            "explained"
        ].keys()
        assert data["explained"].keys() <= data["facts"].keys()
        assert "Output" not in embedded(attribution().report(tmp_path / "b.html"))["meaning"]
