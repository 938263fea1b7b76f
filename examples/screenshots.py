"""Takes the pictures of docs/visualization.md: executes the notebooks and photographs what they show, and the report.

`python examples/screenshots.py` writes docs/images/show-*.png and docs/images/report*.png. It needs playwright and
Chromium.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from notebooks import FOLDER, ROOT, executed
from playwright.sync_api import Browser, sync_playwright

PAGE = (
    '<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body style="margin: 16px">{}'
)
BROWSERS = "chromium", "chromium-browser", "google-chrome"


def shown(book: nbformat.NotebookNode) -> list[str]:
    """What cells show as HTML, in order."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    return [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", ())]


def photograph(browser: Browser, source: str | Path, path: Path, whole: bool = False, **options: Any) -> None:
    """Of HTML or of a file of it; options as of Playwright's `new_page`."""
    page = browser.new_page(device_scale_factor=1.5, **options)
    if isinstance(source, Path):
        page.goto(source.as_uri())
    else:
        page.set_content(PAGE.format(source))
    page.evaluate("Promise.all([...document.images].slice(0, 100).map((image) => image.decode()))")
    page.screenshot(path=path, full_page=whole)
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        images, texts = (executed(FOLDER / f"{book}.ipynb", folder) for book in ("quickstart", "text"))
        report = folder / "trak_results" / "quickstart" / "report.html"
        browser = driver.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, BROWSERS)), None), args=["--no-sandbox"]
        )
        small = {"width": 900, "height": 100}
        (summary, pictured), (_, written, shaded) = shown(images), shown(texts)
        for what, source in (("summary", summary), ("images", pictured), ("texts", written), ("tokens", shaded)):
            photograph(browser, source, output / f"show-{what}.png", whole=True, viewport=small)
        wide, narrow = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
        photograph(browser, report, output / "report.png", viewport=wide)
        photograph(browser, report, output / "report-dark.png", viewport=wide, color_scheme="dark")
        photograph(browser, report, output / "report-narrow.png", viewport=narrow)
        browser.close()


if __name__ == "__main__":
    main()
