"""The report: one HTML file with every target, searchable and sortable, which needs no network."""

import base64
import hashlib
import html
import json
import math
import re
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from trak._utils.typing import Array
from trak._utils.validation import is_number
from trak.visualization.examples import Example, join_tokens
from trak.visualization.images import FIGURE_SIZE, encode_image, scaled_size
from trak.visualization.pages import normalize_scores, read_asset, truncate, write_page
from trak.visualization.selection import ScoredExample, Selection
from trak.visualization.summary import SETTING_DESCRIPTIONS, describe_settings, explain_scores

_CHARACTERS, _TOKENS = 2000, 400
_IMAGE_SIZE = 96
_IMAGES_AT_ONCE = 512
"""Images that are parsed together; the first page of targets has all of its own in the first part."""


def write_report(selection: Selection, path: str | Path, title: str, image_size: int | None) -> Path:
    """Write what `trak.visualization.DisplayMixin.report` describes. The same selection always gives the same bytes."""
    path = Path(path).expanduser()
    if image_size is not None and (not is_number(image_size) or not 1 <= image_size < math.inf):
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size!r}; use 96, or leave it out")
    if not isinstance(title, str):
        raise TypeError(f"title must be a string, got {title!r:.80}; give one, or leave it out")
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; give the name of a file in it, such as report.html")
    contents = _ReportData(selection, image_size)
    found = describe_settings(selection.attribution)
    data = {
        "title": title,
        "facts": found,
        "explained": {name: SETTING_DESCRIPTIONS[name] for name in found if name in SETTING_DESCRIPTIONS},
        "meaning": explain_scores(selection.attribution),
        "images_at_once": _IMAGES_AT_ONCE,
        **contents.examples(),
        "sizes": contents.sizes,
    }
    starts = range(0, max(1, len(contents.images)), _IMAGES_AT_ONCE)
    image_scripts = [
        '<script type="application/json" class="images">'
        f"{_script_json(contents.images[start : start + _IMAGES_AT_ONCE])}</script>\n"
        for start in starts
    ]
    style, script = read_asset("report.css"), read_asset("report.js")
    parts = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; img-src data:; style-src {_csp_hash(style)}; script-src {_csp_hash(script)}",
        "style": style,
        "script": script,
        "data": _script_json(data),
        "first_images": image_scripts[0],
        "more_images": "".join(image_scripts[1:]),
    }
    return write_page(path, re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], read_asset("report.html")))


class _ReportData:
    """Targets and training examples as JSON, which refers to each distinct image by its number."""

    def __init__(self, selection: Selection, image_size: int | None) -> None:
        self._selection, self._size = selection, image_size
        self.images: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        """Width and height of each image."""
        self._image_numbers: dict[bytes, int] = {}

    def examples(self) -> dict[str, Any]:
        """Targets, each with both ends of its ranking, and the training examples in them."""
        selection, targets, train = self._selection, [], dict[int, Any]()
        count = len(selection.targets)
        for ranking in tqdm(selection.rankings(), desc="reading examples", unit="target", total=count, delay=1):
            target = ranking.target
            targets.append(
                {
                    "id": target,
                    **self._example(selection.target[target], selection.token_scores(target)),
                    **_drop_none(predicted=selection.predicted(target)),
                    "up": self._scored_examples(target, ranking.helpful),
                    "down": self._scored_examples(target, ranking.harmful),
                }
            )
            for index, _ in (*ranking.helpful, *ranking.harmful):
                if index not in train:
                    train[index] = self._example(selection.train[index], None)
        return {"targets": targets, "train": train}

    def _scored_examples(self, target: int, scored: tuple[ScoredExample, ...]) -> dict[str, Any]:
        shades = [_shades(self._selection.token_scores(target, one.train_index)) for one in scored]
        return {
            "indices": [one.train_index for one in scored],
            "scores": [one.score for one in scored],
            **_drop_none(shades=shades if any(shade is not None for shade in shades) else None),
        }

    def _example(self, example: Example, token_scores: Array | None) -> dict[str, Any]:
        return _drop_none(
            image=None if example.image is None else self._image_number(example.image, example.is_figure),
            text=truncate(example.text, _CHARACTERS) or None,
            tokens=list(join_tokens(example.tokens[:_TOKENS])) if example.tokens else None,
            shades=_shades(token_scores),
            label=example.label,
        )

    def _image_number(self, pixels: Array, is_figure: bool) -> int:
        key = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()
        if key not in self._image_numbers:
            self._image_numbers[key] = len(self.images)
            size = self._size or (FIGURE_SIZE if is_figure else _IMAGE_SIZE)
            self.images.append(encode_image(pixels, size).removeprefix("data:image/"))
            self.sizes.append(scaled_size(pixels, size))
        return self._image_numbers[key]


def _drop_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _shades(scores: Array | None) -> list[float] | None:
    return None if scores is None else normalize_scores(scores)[:_TOKENS]


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _script_json(value: Any) -> str:
    """JSON in which no HTML parser finds the end of the script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
