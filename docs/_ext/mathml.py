"""Formulas as MathML, which browsers draw by themselves: no script, no fonts to fetch, no network."""

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def _mathml(node: nodes.Element, display: str) -> str:
    formula = node.astext()
    try:
        return convert(formula, display=display)
    except Exception as error:
        raise ExtensionError(f"{node.source}:{node.line}: no formula that latex2mathml reads: {formula!r}") from error


def _inline(writer: Any, node: nodes.Element) -> None:
    writer.body.append(f'<span class="math">{_mathml(node, "inline")}</span>')
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.Element) -> None:
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    anchor = f' id="{node["ids"][0]}"' if node.get("ids") else ""
    writer.body.append(f'<div class="math"{anchor}>{number}{_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
