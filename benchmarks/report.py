"""Times how long a report takes to open in headless Chromium, and to be turned, filtered and searched.

`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/report.py` writes reports of random scores, twenty training examples
a target, over images of several kinds, and opens each in browsers started anew. Opened means: from the start of the
navigation to the frame after which every image in the window is decoded. Nothing else may run beside it.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from sklearn.datasets import load_digits, load_sample_images

from trak.attribution.results import ArrayAttribution

Array = np.ndarray[Any, Any]
KINDS = {"digits": 8, "photographs": 32, "noise": 32, "photographs, 96 pixels": 96, "noise, 96 pixels": 96}
"""By the side of an image in pixels."""

SEEN = """
const look = async () => {
  const inWindow = (image) => image.getBoundingClientRect().top < innerHeight;
  const seen = [...document.querySelectorAll("article img")].filter(inWindow);
  if (!seen.length || !seen.every((image) => image.src)) return requestAnimationFrame(look);
  await Promise.all(seen.map((image) => image.decode()));
  requestAnimationFrame(() => requestAnimationFrame(() => { window.opened = performance.now(); }));
};
requestAnimationFrame(look);
"""
"""Says when all that is in the window was drawn."""

TURN = """
async (change) => {
  const start = performance.now();
  document.querySelector(change.on)[change.value === undefined ? "click" : "focus"]();
  if (change.value !== undefined) {
    document.querySelector(change.on).value = change.value;
    document.querySelector(change.on).dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((resolve) =>
      new MutationObserver(resolve).observe(document.querySelector("#list"), { childList: true }));
  }
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  return performance.now() - start;
}
"""
CHANGES = {
    "next page": {"on": "[data-go=next]"},
    "last page": {"on": "[data-go=last]"},
    "order": {"on": "#order", "value": "strongest"},
    "label": {"on": "#label", "value": "=kind 3"},
    "search": {"on": "#query", "value": "number 77"},
}


def images(kind: str, count: int) -> Array:
    """Images of which no two are the same, uint8 (count, side, side) or (count, side, side, 3)."""
    rng, side = np.random.default_rng(0), KINDS[kind]
    if kind == "digits":
        grey = load_digits().images[rng.integers(1797, size=count)] * 15
        return (grey + rng.integers(0, 15, size=grey.shape)).astype(np.uint8)
    if kind.startswith("noise"):
        return rng.integers(0, 256, (count, side, side, 3), np.uint8)
    photographs = load_sample_images().images
    found = np.empty((count, side, side, 3), np.uint8)
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        y, x = (int(rng.integers(edge - side)) for edge in photograph.shape[:2])
        found[i] = photograph[y : y + side, x : x + side]
    return found


def written(kind: str, targets: int, train: int, folder: Path) -> Path:
    """A report."""
    scores = np.random.default_rng(1).normal(size=(train, targets))
    seen = images(kind, train + targets)
    labels = [f"kind {i % 10}" for i in range(train + targets)]
    return ArrayAttribution(scores, name=kind).report(
        folder / f"{kind.replace(', ', '-').replace(' ', '-')}-{targets}.html",
        seen[:train],
        (seen[train:], [f"target number {i}" for i in range(targets)]),
        train_labels=labels[:train],
        target_labels=labels[train:],
        predicted_labels=labels[train:][1:] + labels[:1],
    )


def opened(browser: Browser, path: Path) -> tuple[float, Page]:
    """Milliseconds until the first page was seen."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(SEEN)
    page.goto(path.resolve().as_uri(), wait_until="commit")
    while (found := page.evaluate("window.opened ?? null")) is None:
        time.sleep(0.01)
    return found, page


def spread(values: list[float]) -> str:
    """The median, with the least and the greatest."""
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--targets", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--train", type=int, default=5000, help="training examples")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/report"))
    options = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    print("| images | targets | MB | written, s | opened, ms |", *(f"{name}, ms |" for name in CHANGES))
    print("| --- | --- | --- | --- | --- |", *("--- |" for _ in CHANGES))
    rows = []
    with sync_playwright() as driver:
        for kind in options.kinds:
            for targets in options.targets:
                start = time.perf_counter()
                path = written(kind, targets, options.train, options.output)
                row = {"images": kind, "targets": targets, "bytes": path.stat().st_size, "load": os.getloadavg()[0]}
                row["written"] = time.perf_counter() - start
                found: dict[str, list[float]] = {name: [] for name in ("opened", *CHANGES)}
                for _ in range(options.rounds):
                    browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                    milliseconds, page = opened(browser, path)
                    found["opened"].append(milliseconds)
                    for name, change in CHANGES.items():
                        found[name].append(page.evaluate(TURN, change))
                    browser.close()
                rows.append({**row, **found})
                figures = " | ".join(spread(values) for values in found.values())
                print(f"| {kind} | {targets:,} | {row['bytes'] / 1e6:.1f} | {row['written']:.1f} | {figures} |")
    (options.output / "report.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
