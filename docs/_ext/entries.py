"""Which page of the reference describes what: each public name once, under the shortest name it is imported by.

A page names modules (`automodule`) and single names (`autoclass`, `autofunction`); a module's entry has the names that
are at home there.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import roles
from sphinx import addnodes
from sphinx.application import Sphinx

PAGES = Path(__file__).parents[1] / "api"
_DIRECTIVE = re.compile(r"^ *(?:\.\. auto(module|\w+)::|```\{auto(\w+)\}) +([\w.]+)$", flags=re.MULTILINE)
# What Python itself says of every named tuple.
_NO_NEWS = re.compile(r"Create new instance of |Alias for field number \d+$")
# Of these napoleon takes what stands before a first colon for a type.
_VALUES, _COLON = {"attribute", "data", "property"}, "\ue000"


def home(value: Any) -> str:
    """The module under whose name a class or function is described: the outermost that exports it."""
    parts = value.__module__.split(".")
    for length in range(1, len(parts)):
        package = importlib.import_module(".".join(parts[:length]))
        name = value.__qualname__
        if name in getattr(package, "__all__", ()) and getattr(package, name) is value:
            return package.__name__
    return str(value.__module__)


def is_described(value: Any) -> bool:
    """Whether a value of a module gets an entry of its own: a class or function."""
    return inspect.isclass(value) or inspect.isfunction(value)


def described() -> Iterator[tuple[str, str]]:
    """All (page, name) of the pages' sources; a module's name is followed by those at home there."""
    for page in sorted(PAGES.glob("**/*.md")):
        for match in _DIRECTIVE.finditer(page.read_text()):
            name = match[3]
            yield page.name, name
            if match[1] == "module":
                module = importlib.import_module(name)
                for member, value in vars(module).items():
                    if not member.startswith("_") and is_described(value) and home(value) == name:
                        yield page.name, f"{name}.{member}"


@cache
def _short() -> dict[str, str]:
    """Full names of what is described, by short ones that mean one thing; "" for those that mean several."""
    found: dict[str, str] = {}
    for _, name in described():
        short = name.rpartition(".")[2]
        found[short] = "" if short in found else name
    return found


def _name(role: str, raw: str, text: str, *_: Any, **__: Any) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """The role of single backticks in docstrings: code, and a link where it is a full name or a class."""
    code, target = nodes.literal(raw, text, classes=["code"]), re.sub(r"\(.*", "", text)
    if text[:1].isupper():
        first, *rest = target.split(".")
        target = ".".join([_short().get(first) or first, *rest])
    if not re.fullmatch(r"trak(\.\w+)+", target):
        return [code], []
    return [addnodes.pending_xref(raw, code, refdomain="py", reftype="obj", reftarget=target)], []


def _skip(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    if what != "module" or not is_described(value) or name.startswith("_"):
        return None
    module = app.env.current_document.autodoc_module
    return True if home(value) != module else None


def _clean(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    if lines and _NO_NEWS.match(lines[0]):
        lines.clear()
    if lines and what in _VALUES:
        lines[0] = lines[0].replace(":", _COLON)


def _restore(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None] | None:
    """A protocol is not made by a call: Python says (*args, **kwargs) of it, which nobody wrote."""
    return ("", None) if what == "class" and arguments == "(*args, **kwargs)" else None


def _without_object(app: Sphinx, doctree: nodes.document) -> None:
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    roles.register_local_role("name", _name)
    app.connect("doctree-read", _without_object)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _clean, priority=100)
    app.connect("autodoc-process-docstring", _restore, priority=900)
    return {"version": "1", "parallel_read_safe": True}
