"""docs/troubleshooting.md quotes messages that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"^> `(.+)`$", PAGE, flags=re.MULTILINE)
VALUE = "\0"


def texts(tree):
    """Every string of a module's code, with VALUE where one is put in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)


@pytest.fixture(scope="module")
def source():
    return [text for path in (ROOT / "trak").rglob("*.py") for text in texts(ast.parse(path.read_text()))]


def test_the_page_quotes_at_least_twenty_messages_none_twice():
    assert len(QUOTED) == len(set(QUOTED)) >= 20


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_one_that_the_source_has(quoted, source):
    pattern = re.compile(VALUE.join(re.escape(part) for part in quoted.split("…")))
    assert any(pattern.search(text) for text in source)
