"""Links that lead where they should in the site as well as in the repository.

Pages are written for both: a link is relative to its file. What the site shows under another address (README,
CHANGELOG, ...) is linked there, other files of the repository become downloads, and a link to a folder, which the site
has not, is its text alone.
"""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

PAGES = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
}
"""Files outside docs that a page includes, by the page."""

_FENCE = re.compile(r"^ *(```+|~~~+|:::+).*?^ *\1 *$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def relinked(text: str, source: Path, page: Path) -> str:
    """The Markdown of `source`, shown on `page`, with links as the site has them; code is left alone."""

    def link(match: re.Match[str]) -> str:
        image, label, target, fragment = match.groups()
        found = (source.parent / target).resolve()
        if re.match(r"[a-z]+:", target) or not found.is_relative_to(ROOT) or not found.exists():
            return match[0]
        if found.is_dir():
            return relinked(label, source, page)
        shown = DOCS / PAGES.get(found.relative_to(ROOT).as_posix(), os.path.relpath(found, DOCS))
        return f"{image}[{relinked(label, source, page)}]({os.path.relpath(shown, page.parent)}{fragment or ''})"

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(link, text[end:])])


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    content[0] = relinked(content[0], page, page)


def _included(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    source = (Path(app.srcdir) / path).resolve()
    content[0] = relinked(content[0], source, Path(app.env.doc2path(docname)))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("include-read", _included)
    return {"version": "1", "parallel_read_safe": True}
