"""A report: one file that a browser opens without network, with every target, to search and to sort."""

import base64
import hashlib
import html
import json
import math
import re
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from trak._utils.validation import is_number
from trak.visualization.examples import Example, joined
from trak.visualization.images import DRAWING_SIZE, Array, encode, fitted
from trak.visualization.selection import Neighbour, Selection
from trak.visualization.show import page_file, shortened, strengths, write_page
from trak.visualization.summary import EXPLAINED, facts, meaning

_CHARACTERS, _TOKENS = 2000, 400
_IMAGE_SIZE = 96
_IMAGES_AT_ONCE = 512
"""Images that are parsed together; the first page of targets has all of its own in the first part."""


def write_report(
    selection: Selection, path: str | Path, *, title: str = "Attribution report", image_size: int | None = None
) -> Path:
    """Write the report.

    What is written depends on the selection alone: the same attribution gives the same bytes.

    Args:
        selection: targets and training examples.
        path: of the file, which is replaced.
        title: heading of the page.
        image_size: pixels that no side of an image is longer than; by default 96, and 480 for figures of matplotlib's.

    Raises:
        ImportError: if there are images and Pillow is not installed.
        ValueError: for an `image_size` below 1 or without end.
        TypeError: for a title that is no string.
        IsADirectoryError: if `path` is a folder.
    """
    path = Path(path).expanduser()
    if image_size is not None and (not is_number(image_size) or not 1 <= image_size < math.inf):
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size!r}; use 96, or leave it out")
    if not isinstance(title, str):
        raise TypeError(f"title must be a string, got {title!r:.80}; give one, or leave it out")
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; give the name of a file in it, such as report.html")
    contents = _Contents(selection, image_size)
    found = facts(selection.attribution)
    data = {
        "title": title,
        "facts": found,
        "explained": {name: EXPLAINED[name] for name in found if name in EXPLAINED},
        "meaning": meaning(selection.attribution),
        "images_at_once": _IMAGES_AT_ONCE,
        **contents.collect(),
        "sizes": contents.sizes,
    }
    style, script = page_file("report.css"), page_file("report.js")
    parts = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}",
        "style": style,
        "script": script,
        "data": _embedded(data),
        "first_images": _images(contents.images[:_IMAGES_AT_ONCE]),
        "more_images": "".join(
            _images(contents.images[start : start + _IMAGES_AT_ONCE])
            for start in range(_IMAGES_AT_ONCE, len(contents.images), _IMAGES_AT_ONCE)
        ),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page_file("report.html"))
    return write_page(path, page)


class _Contents:
    """Collects what is seen of examples, every image once."""

    def __init__(self, selection: Selection, image_size: int | None) -> None:
        self._selection, self._size = selection, image_size
        self.images: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        """Of the images, width and height."""
        self._places: dict[bytes, int] = {}

    def collect(self) -> dict[str, Any]:
        """Targets, each with both ends, and the training examples that they name."""
        targets, train = [], dict[int, Any]()
        count = len(self._selection.targets)
        for row in tqdm(self._selection.rows(), desc="reading examples", unit="target", total=count, delay=1):
            targets.append(
                {
                    "id": row.target,
                    **self._seen(self._selection.target[row.target], self._selection.target_token_scores(row.target)),
                    **_present(predicted=self._selection.predicted(row.target)),
                    "up": self._end(row.target, row.helpful),
                    "down": self._end(row.target, row.harmful),
                }
            )
            for neighbour in (*row.helpful, *row.harmful):
                if neighbour.train_index not in train:
                    train[neighbour.train_index] = self._seen(self._selection.train[neighbour.train_index], None)
        return {"targets": targets, "train": train}

    def _end(self, target: int, neighbours: tuple[Neighbour, ...]) -> dict[str, Any]:
        shades = [self._selection.train_token_scores(target, n.train_index) for n in neighbours]
        known = any(shade is not None for shade in shades)
        return {
            "indices": [n.train_index for n in neighbours],
            "scores": [n.score for n in neighbours],
            **_present(shades=[_shades(shade) for shade in shades] if known else None),
        }

    def _seen(self, example: Example, scores: Array | None) -> dict[str, Any]:
        tokens = list(joined(example.tokens[:_TOKENS])) if example.tokens else None
        return _present(
            image=None if example.image is None else self._image(example.image, example.is_drawing),
            text=shortened(example.text, _CHARACTERS) or None,
            tokens=tokens,
            shades=_shades(scores),
            label=example.label,
        )

    def _image(self, pixels: Array, is_drawing: bool) -> int:
        key = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
        if key not in self._places:
            self._places[key] = len(self.images)
            size = self._size or (DRAWING_SIZE if is_drawing else _IMAGE_SIZE)
            self.images.append(encode(pixels, size).removeprefix("data:image/"))
            self.sizes.append(fitted(pixels, size))
        return self._places[key]


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _shades(scores: Array | None) -> list[float] | None:
    return None if scores is None else strengths(scores)[:_TOKENS]


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _images(some: list[str]) -> str:
    return f'<script type="application/json" class="images">{_embedded(some)}</script>\n'


def _embedded(value: Any) -> str:
    """As JSON that no HTML parser sees an end of the script in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
