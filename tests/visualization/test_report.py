"""The report: what is in the file, and what Chromium shows of it."""

import base64
import hashlib
import io
import json
import re
import shutil
import time
from functools import partial

import numpy as np
import pytest
from models import images
from test_show import HOSTILE, attribution

import trak
import trak.visualization.report as report_module

LABELS = ["cat", "dog", "cat", "cow"]


def parts(path, attribute):
    """What the file holds as JSON, found as a browser finds it: up to the next end of a script."""
    return [json.loads(p) for p in re.findall(rf"<script[^>]* {attribute}>(.*?)</script", path.read_text(), re.DOTALL)]


def embedded(path):
    (data,) = parts(path, 'id="data"')
    return data


def images_of(path):
    return [image for part in parts(path, 'class="images"') for image in part]


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


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium found: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def expect(chromium):
    """Waits for what is expected of a page without evaluating code in it, which its policy forbids."""
    from playwright.sync_api import expect

    expect.set_options(timeout=120_000)
    return expect


class TestBrowser:
    """1,000 targets × 20 neighbours with images, as Chromium shows them."""

    @pytest.fixture(scope="class")
    @classmethod
    def report(cls, tmp_path_factory):
        pytest.importorskip("PIL")
        rng = np.random.default_rng(0)
        coarse = rng.random((2000, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
        train = (coarse + rng.normal(size=(2000, 3, 32, 32)) * 0.02).clip(0, 1).astype(np.float32)
        texts = [f"picture {i} of a thing" for i in range(1000)]
        texts[1] = HOSTILE
        found = attribution(2000, 1000)
        path = found.report(
            tmp_path_factory.mktemp("report") / "report.html",
            train,
            (train[:1000], texts),
            train_labels=[f"kind {i % 3}" for i in range(2000)],
            target_labels=LABELS * 250,
            predicted_labels=["cat", "dog", "cat", "cat"] * 250,
        )
        return found, path

    @pytest.fixture
    def page(self, chromium, report):
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        problems = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
        page.set_default_timeout(120_000)
        page.goto(report[1].as_uri(), timeout=120_000)
        yield page
        page.close()
        assert not problems

    def titles(self, page):
        # Not as rendered: what is far below the window is not, until it is scrolled to.
        return page.locator("article h2").all_text_contents()

    def test_it_opens_small_with_one_page_of_targets_and_their_images(self, page, report):
        assert report[1].stat().st_size < 25e6
        print(f"{report[1].stat().st_size / 1e6:.1f} MB, opened in", page.evaluate("performance.now()"), "ms")
        assert self.titles(page) == [f"Target {i}" for i in range(20)]
        assert page.locator("article img").count() == 20 * 21
        page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth === 32)")
        top = report[0].top(10)
        first = page.locator("article").first.locator("section").first
        assert first.locator("li figcaption button").all_inner_texts() == [f"#{i}" for i in top.indices[0]]
        assert page.get_by_role("status").first.inner_text() == "Targets 1 to 20 of 1,000"

    def test_pages_are_turned_with_the_keyboard(self, page):
        page.get_by_role("button", name="Next").first.focus()
        page.keyboard.press("Enter")
        assert self.titles(page)[0] == "Target 20"
        page.get_by_role("button", name="Last").first.click()
        assert self.titles(page)[-1] == "Target 999"
        assert page.get_by_role("button", name="Next").first.is_disabled()
        page.reload()
        assert self.titles(page)[-1] == "Target 999"

    def test_search_label_and_wrong_predictions_filter(self, page, report, expect):
        page.get_by_label("Search", exact=True).fill("picture 77")
        expect(page.locator("article")).to_have_count(19)
        page.get_by_label("Search", exact=True).fill("")
        page.get_by_label("wrong predictions only").check()
        expect(page.locator("#status")).to_contain_text("of 250 found")
        assert self.titles(page)[:2] == ["Target 3", "Target 7"]
        page.locator("#label").select_option("dog")
        expect(page.locator("article")).to_have_count(0)
        assert "None of 1,000" in page.get_by_role("status").first.inner_text()

    def test_a_training_example_leads_to_its_targets(self, page, report):
        index = int(report[0].top(1).indices[0, 0])
        page.locator("article li figcaption button").first.click()
        both = [report[0].top(10, bottom).indices for bottom in (False, True)]
        expected = [f"Target {t}" for t in range(1000) if any(index in ends[t] for ends in both)]
        assert self.titles(page) == expected[:20]

    def test_targets_are_sorted_by_their_highest_score(self, page, report, expect):
        page.get_by_label("Order").select_option("highest")
        order = np.argsort(-report[0].top(1).scores[:, 0], kind="stable")
        expect(page.locator("h2").first).to_have_text(f"Target {order[0]}")
        assert self.titles(page) == [f"Target {t}" for t in order[:20]]

    def test_an_image_is_enlarged_by_enter_or_click_and_escape_leads_back(self, page, report, expect):
        index = int(report[0].top(1).indices[0, 0])
        small, large = (
            page.get_by_role("button", name=f"Enlarge training example {index}").first,
            page.locator("dialog"),
        )
        expect(large).not_to_be_visible()
        small.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name=f"Training example {index}, label kind {index % 3}")).to_be_visible()
        assert large.locator("img").get_attribute("src") == small.locator("img").get_attribute("src")
        assert large.locator("img").bounding_box()["width"] > 3 * small.locator("img").bounding_box()["width"]
        page.keyboard.press("Escape")
        expect(large).not_to_be_visible()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == f"Enlarge training example {index}"
        page.get_by_role("button", name="Enlarge target 0").click()
        page.get_by_role("button", name="Close").click()
        expect(large).not_to_be_visible()

    @pytest.mark.parametrize(
        ("shape", "size", "width", "height"),
        [((8, 8), None, 90, 90), ((24, 96), None, 180, 45), ((300, 600), 480, 351, 175), ((90, 4), None, 90, 248)],
    )
    def test_an_image_is_as_large_and_as_wide_as_it_is_stored_within_bounds(
        self, chromium, tmp_path, shape, size, width, height
    ):
        images = np.random.default_rng(0).random((12, *shape))
        path = attribution().report(tmp_path / "a.html", images, images[:4], image_size=size, k=2)
        for across in (1280, 390):
            page = chromium.new_page(viewport={"width": across, "height": 844})
            page.goto(path.as_uri())
            box = page.locator("li").first.bounding_box()
            shown = page.locator("li img").first.bounding_box()
            assert page.evaluate("document.documentElement.scrollWidth") <= across
            page.locator("li .enlarge").first.click()
            page.locator("dialog button").scroll_into_view_if_needed()
            assert page.evaluate("document.documentElement.scrollWidth") <= across
            large = page.locator("dialog").bounding_box()
            assert large["x"] >= 0
            assert large["x"] + large["width"] <= across
            assert large["y"] + large["height"] <= 844
            page.close()
            if across == 1280:
                assert abs(box["width"] - width) <= 1
                assert abs(shown["height"] - height) <= 1

    def test_a_long_title_stays_within_a_narrow_window(self, chromium, tmp_path):
        path = attribution().report(tmp_path / "a.html", title="t" * 300)
        page = chromium.new_page(viewport={"width": 390, "height": 844})
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.close()

    def test_texts_that_scroll_and_no_others_are_reached_by_the_keyboard(self, chromium, expect, tmp_path):
        images, texts = np.random.default_rng(0).random((12, 8, 8)), ["word " * 40, "short"] * 6
        path = attribution().report(tmp_path / "a.html", (images, texts), k=6)
        page = chromium.new_page(viewport={"width": 1280, "height": 844})
        page.goto(path.as_uri())
        boxes = page.locator("article").first.locator("li .text")
        expect(boxes.filter(has_text="word").first).to_have_attribute("tabindex", "0")
        for box in boxes.all():
            scrolls = box.evaluate("box => box.scrollHeight > box.clientHeight")
            assert scrolls == ("word" in box.inner_text())
            assert box.get_attribute("tabindex") == ("0" if scrolls else None)
            assert (box.get_attribute("aria-label") or "").startswith("text of training example") == scrolls
        page.close()

    def test_hostile_text_is_shown_as_text(self, page):
        assert page.locator("article").nth(1).locator(".of .text").text_content() == HOSTILE

    def test_indices_are_copied_and_that_is_said(self, page, report, expect):
        page.get_by_role("button", name="Copy the indices of target 0's highest scores").click()
        said = page.locator("#said")
        expect(said).not_to_be_empty()
        assert json.loads(said.inner_text().removeprefix("Copied ")) == report[0].top(10).indices[0].tolist()

    def test_every_control_and_image_has_a_name_and_focus_is_seen(self, page):
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, input, select')].filter("
            "e => !e.hidden && !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).length"
        )
        assert unnamed == 0
        assert page.locator("img:not([alt]), img[alt='']").count() == 0
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the targets"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    def test_it_is_dark_where_that_is_preferred(self, page):
        def light():
            return [
                int(v) for v in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
            ]

        page.emulate_media(color_scheme="light")
        assert min(light()) > 200
        page.emulate_media(color_scheme="dark")
        assert max(light()) < 60

    def test_a_narrow_window_has_nothing_beside_it(self, page, expect):
        page.set_viewport_size({"width": 390, "height": 844})
        expect(page.locator("article img").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for control in page.locator("#controls input, #controls select, .pages button").all():
            box = control.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390

    def test_a_screen_reader_is_told_what_everything_is(self, page):
        tree = page.locator("body").aria_snapshot()
        for line in (
            '- link "Skip to the targets":',
            '- heading "Attribution report" [level=1]',
            '- search "Targets":',
            '- searchbox "Search"',
            '- combobox "Label":',
            '- combobox "Order":',
            '- checkbox "wrong predictions only"',
            '- main "Targets":',
            '- navigation "Pages":',
            "- status: Targets 1 to 20 of 1,000",
            '- button "First" [disabled]',
            '- article "Target 0":',
            '- heading "Target 0" [level=2]',
            """- 'region "Highest scores: pushed the output up"':""",
            """- 'region "Lowest scores: pushed it down"':""",
        ):
            assert line in tree
        assert re.search(r'- img "training example \d+"', tree)
        assert len(re.findall(r'- article "Target \d+":', tree)) == 20

    def test_tab_goes_through_the_controls_in_the_order_in_which_they_are_seen(self, page):
        found = []
        for _ in range(9):
            page.keyboard.press("Tab")
            found.append(
                page.evaluate(
                    "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.id) "
                    "|| document.activeElement.textContent"
                )
            )
        assert found[:7] == [
            "Skip to the targets",
            "How the scores were made",
            "query",
            "label",
            "order",
            "wrong",
            "deep",
        ]
        assert found[7:] == ["Next", "Last"]

    def test_images_from_the_end_of_the_file_are_seen_on_the_last_page(self, page):
        page.get_by_role("button", name="Last").first.click()
        page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
        assert page.evaluate("[...document.images].every(i => i.naturalWidth === 32)")

    def test_a_page_named_in_the_address_is_opened_with_its_images(self, page, report):
        page.goto("about:blank")
        page.goto(report[1].as_uri() + "#page=50")
        assert self.titles(page)[0] == "Target 980"
        page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
        assert page.evaluate("[...document.images].every(i => i.naturalWidth === 32)")
