"""Targets beside the training examples at both ends of their ranking: HTML in a notebook, text in a terminal."""

import html
import textwrap
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from trak._utils.typing import Array
from trak.visualization.examples import Example, join_tokens
from trak.visualization.images import FIGURE_SIZE, encode_image
from trak.visualization.pages import format_score, normalize_scores, read_asset, truncate, write_page
from trak.visualization.selection import ScoredExample, Selection, TargetRanking

HELPFUL, HARMFUL = "highest scores: training on them pushed the output up", "lowest scores: pushed it down"
_IMAGE_SIZE, _PIXELATED = 224, 64
_WIDTH, _CHARACTERS = 100, 600
_WRONG = "wrong"


class AttributionView:
    """What `attribution.show` returns: a notebook displays it, a terminal prints it, `save` writes it."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    @cached_property
    def rankings(self) -> list[TargetRanking]:
        """Both ends of the ranking of each target."""
        return list(self._selection.rankings())

    def _repr_html_(self) -> str:
        body = "".join(self._target_html(ranking) for ranking in self.rankings)
        return f'<style>{read_asset("show.css")}</style><div class="trak-show">{body}</div>'

    def save(self, path: str | Path) -> Path:
        """Write a self-contained HTML page.

        Raises:
            ValueError: for a file name that does not end in .html or .htm.
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

    def _target_html(self, ranking: TargetRanking) -> str:
        target, example = ranking.target, self._selection.target[ranking.target]
        facts = _facts(example, self._selection.predicted(target))
        caption = "<br>".join(f"<strong>{fact}</strong>" if fact == _WRONG else html.escape(fact) for fact in facts)
        figure = _figure_html(example, f"target {target}", caption, self._selection.token_scores(target))
        ends = (("up", HELPFUL, ranking.helpful), ("down", HARMFUL, ranking.harmful))
        return (
            f'<section aria-label="target {target}"><div class="trak-of"><h4>Target {target}</h4>{figure}</div>'
            f"<div>{''.join(self._end_html(target, *end) for end in ends)}</div></section>"
        )

    def _end_html(self, target: int, side: str, title: str, scored: Sequence[ScoredExample]) -> str:
        items = ""
        for index, score in scored:
            example = self._selection.train[index]
            caption = "<br>".join([f"<b>{format_score(score)}</b> #{index}", *map(html.escape, _facts(example))])
            token_scores = self._selection.token_scores(target, index)
            items += f"<li>{_figure_html(example, f'training example {index}', caption, token_scores)}</li>"
        wide = "" if self._selection.train[scored[0].train_index].image is not None else " trak-wide"
        return (
            f'<div class="trak-end trak-{side}{wide}"><h5>{title[:1].upper()}{title[1:]}</h5>'
            f"<ol>{items}</ol><p>indices: <code>{[one.train_index for one in scored]}</code></p></div>"
        )

    def __repr__(self) -> str:
        lines = []
        for ranking in self.rankings:
            example = self._selection.target[ranking.target]
            facts = [f"target {ranking.target}", *_facts(example, self._selection.predicted(ranking.target))]
            lines.append(", ".join(facts) + _wrapped_text(example, "  "))
            for title, scored in ((HELPFUL, ranking.helpful), (HARMFUL, ranking.harmful)):
                lines.append(f"  {title}")
                for index, score in scored:
                    example = self._selection.train[index]
                    facts = [f"#{index}", *_facts(example)]
                    lines.append(f"    {format_score(score):>9}  {', '.join(facts)}{_wrapped_text(example, ' ' * 15)}")
                lines.append(f"    indices: {[one.train_index for one in scored]}")
        return "\n".join(lines)


def _facts(example: Example, predicted: str | None = None) -> list[str]:
    """The label and the prediction in words, and whether they differ."""
    known = [(name, value) for name, value in (("label", example.label), ("predicted", predicted)) if value is not None]
    is_wrong = len(known) == 2 and example.label != predicted
    return [*(f"{name} {value}" for name, value in known), *[_WRONG] * is_wrong]


def _plain_text(example: Example) -> str:
    return example.text or "".join(join_tokens(example.tokens))


def _wrapped_text(example: Example, indent: str) -> str:
    text = " ".join(_plain_text(example).split())
    lines = textwrap.wrap(text, _WIDTH - len(indent), max_lines=3, placeholder=" …")
    return "".join(f"\n{indent}{line}" for line in lines)


def _figure_html(example: Example, name: str, caption: str, token_scores: Array | None) -> str:
    content = ""
    if example.image is not None:
        small = ' class="trak-small"' if max(example.image.shape[:2]) <= _PIXELATED else ""
        kind, size = (' class="trak-drawing"', FIGURE_SIZE) if example.is_figure else (small, _IMAGE_SIZE)
        content = f'<img{kind} src="{encode_image(example.image, size)}" alt="{name}">'
    if token_scores is not None:
        content += f"<blockquote>{_shaded_tokens(example.tokens, token_scores)}</blockquote>"
    elif text := _plain_text(example):
        content += f"<blockquote>{html.escape(truncate(text, _CHARACTERS))}</blockquote>"
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def _shaded_tokens(tokens: Sequence[str], scores: Array) -> str:
    return "".join(
        f'{token[: len(token) - len(token.lstrip())]}<span class="trak-{"up" if share >= 0 else "down"}" '
        f'style="--trak-share:{abs(share):.3g}" title="{format_score(score)}">{html.escape(token.lstrip())}</span>'
        for token, share, score in zip(join_tokens(tokens), normalize_scores(scores), scores.tolist(), strict=True)
    )
