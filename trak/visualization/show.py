"""Targets beside the training examples at both ends of their ranking: HTML in a notebook, text in a terminal."""

import html
import textwrap
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from trak.visualization.examples import Example, joined
from trak.visualization.images import DRAWING_SIZE, Array, encode
from trak.visualization.selection import Neighbour, Row, Selection

HELPFUL, HARMFUL = "highest scores: training on them pushed the output up", "lowest scores: pushed it down"
_IMAGE_SIZE, _PIXELATED = 224, 64
_WIDTH, _CHARACTERS = 100, 600


class AttributionView:
    """What `attribution.show` returns: a notebook displays it, a terminal prints it, `save` writes it."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    @cached_property
    def rows(self) -> list[Row]:
        """Of each target shown, both ends of its ranking."""
        return list(self._selection.rows())

    def _repr_html_(self) -> str:
        body = "".join(self._target(row) for row in self.rows)
        return f'<style>{page_file("show.css")}</style><div class="trak-show">{body}</div>'

    def save(self, path: str | Path) -> Path:
        """Write it as a page of its own, which needs nothing else.

        Raises:
            ValueError: for a file name that is no HTML's.
        """
        path = Path(path).expanduser()
        if path.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"save writes HTML, got {path.name!r}; end it in .html (show_images draws pictures)")
        return write_page(
            path,
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="color-scheme" content="light dark"><meta name="viewport" content="width=device-width">'
            f"<title>Attribution</title></head><body>{self._repr_html_()}</body></html>\n",
        )

    def _target(self, row: Row) -> str:
        selection, example = self._selection, self._selection.target[row.target]
        predicted = selection.predicted(row.target)
        caption = [_labelled("label", example.label), _labelled("predicted", predicted)]
        if _is_wrong(example.label, predicted):
            caption.append("<strong>wrong</strong>")
        of = _figure(
            example,
            f"target {row.target}",
            "<br>".join(filter(None, caption)),
            selection.target_token_scores(row.target),
        )
        ends = (("up", HELPFUL, row.helpful), ("down", HARMFUL, row.harmful))
        return (
            f'<section aria-label="target {row.target}"><div class="trak-of"><h4>Target {row.target}</h4>{of}</div>'
            f"<div>{''.join(self._end(row.target, *end) for end in ends)}</div></section>"
        )

    def _end(self, target: int, side: str, title: str, neighbours: Sequence[Neighbour]) -> str:
        items = []
        for index, score in neighbours:
            example = self._selection.train[index]
            caption = [f"<b>{number(score)}</b> #{index}", _labelled("label", example.label)]
            scores = self._selection.train_token_scores(target, index)
            items.append(
                f"<li>{_figure(example, f'training example {index}', '<br>'.join(filter(None, caption)), scores)}</li>"
            )
        indices = ", ".join(str(n.train_index) for n in neighbours)
        wide = "" if self._selection.train[neighbours[0].train_index].image is not None else " trak-wide"
        return (
            f'<div class="trak-end trak-{side}{wide}"><h5>{title[:1].upper()}{title[1:]}</h5>'
            f"<ol>{''.join(items)}</ol><p>indices: <code>[{indices}]</code></p></div>"
        )

    def __repr__(self) -> str:
        lines = []
        for row in self.rows:
            example, predicted = self._selection.target[row.target], self._selection.predicted(row.target)
            facts = [f"target {row.target}", *_plain(("label", example.label), ("predicted", predicted))]
            facts += ["wrong"] * _is_wrong(example.label, predicted)
            lines.append(", ".join(facts) + _text(example, "  "))
            for title, neighbours in ((HELPFUL, row.helpful), (HARMFUL, row.harmful)):
                lines.append(f"  {title}")
                for index, score in neighbours:
                    found = self._selection.train[index]
                    facts = [f"#{index}", *_plain(("label", found.label))]
                    lines.append(f"    {number(score):>9}  {', '.join(facts)}{_text(found, ' ' * 15)}")
                lines.append(f"    indices: {[n.train_index for n in neighbours]}")
        return "\n".join(lines)


def page_file(name: str) -> str:
    """What a file of `trak/visualization/page` holds."""
    return (files("trak.visualization") / "page" / name).read_text(encoding="utf-8")


def write_page(path: Path, source: str) -> Path:
    """Write a page, in folders that are made; what is no UTF-8, as a lone surrogate is not, is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = source.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    path.write_text(source, encoding="utf-8", newline="\n")
    return path


def shortened(text: str, characters: int) -> str:
    """The text, or its beginning with an ellipsis."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def strengths(scores: Array) -> list[float]:
    """Scores of tokens over the greatest of them, from -1 to 1."""
    return (scores / (abs(scores).max() or 1)).round(3).tolist()


def number(score: float) -> str:
    """A score in three digits, with its sign."""
    return f"{score:+#.3g}".rstrip(".").replace("-", "−")


def _is_wrong(label: str | None, predicted: str | None) -> bool:
    return None not in (label, predicted) and label != predicted


def _plain(*facts: tuple[str, str | None]) -> list[str]:
    return [f"{name} {value}" for name, value in facts if value is not None]


def _labelled(name: str, value: str | None) -> str:
    return "" if value is None else f"{name} {html.escape(value)}"


def _text(example: Example, indent: str) -> str:
    text = example.text or "".join(joined(example.tokens))
    if not text:
        return ""
    width = _WIDTH - len(indent)
    lines = textwrap.wrap(" ".join(text.split()), width, max_lines=3, placeholder=" …")
    return "\n" + textwrap.indent("\n".join(lines), indent)


def _figure(example: Example, name: str, caption: str, scores: Array | None) -> str:
    seen = ""
    if example.image is not None:
        small = ' class="trak-small"' if max(example.image.shape[:2]) <= _PIXELATED else ""
        kind, size = (' class="trak-drawing"', DRAWING_SIZE) if example.is_drawing else (small, _IMAGE_SIZE)
        seen = f'<img{kind} src="{encode(example.image, size)}" alt="{name}">'
    if scores is not None:
        seen += f"<blockquote>{_shaded(example.tokens, scores)}</blockquote>"
    elif example.text or example.tokens:
        text = shortened(example.text or "".join(joined(example.tokens)), _CHARACTERS)
        seen += f"<blockquote>{html.escape(text)}</blockquote>"
    return f"<figure>{seen}<figcaption>{caption}</figcaption></figure>"


def _shaded(tokens: Sequence[str], scores: Array) -> str:
    return "".join(
        f'{token[: len(token) - len(token.lstrip())]}<span class="trak-{"up" if strength >= 0 else "down"}" '
        f'style="--trak-share:{abs(strength):.3g}" title="{number(score)}">{html.escape(token.lstrip())}</span>'
        for token, strength, score in zip(joined(tokens), strengths(scores), scores.tolist(), strict=True)
    )
