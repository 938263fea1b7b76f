"""The report as Chromium shows it."""

import json
import re
import shutil

import numpy as np
import pytest
from report_files import LABELS
from views import HOSTILE, attribution

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
