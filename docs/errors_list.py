"""Writes docs/errors.md, the list of every error that trak raises, from the source of trak/."""

import argparse
import ast
import builtins
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "errors.md"

AREAS = {
    "trak": "Attributing: models, checkpoints, loaders, scores",
    "trak.tasks": "Tasks and the batches they are given",
    "trak.gradients": "Gradients",
    "trak.projectors": "Projectors",
    "trak.scoring": "Damping and scoring",
    "trak.store": "The store",
    "trak.visualization": "Showing examples and reports",
    "trak.evaluation": "Evaluation and retraining",
    "trak.baselines": "Baselines",
    "trak.distributed": "Ray and other processes",
    "trak.cli": "The command line",
    "trak.distributed.planning": "Plans",
}

CAUGHT = {
    ("trak.evaluation.retraining.run_store", "it is no array"): "part of '<name> in <where> is damaged'",
    ("trak.gradients.functional", "a batch with fields that are no tensors"): "the engine goes on an example at a time",
    ("trak.gradients.layers.attention", "MultiheadAttention without a batch"): "the layer counts as one without a rule",
    ("trak.store.checks", "its attributes are no mapping"): "part of '<path> in <store_path> can't be read as zarr'",
    ("trak.store.checks", "<metadata> is no file"): "part of '<path> in <store_path> can't be read as zarr'",
    ("trak.store.opening", "<name>"): "'there is no <kind> at <name>'",
    ("trak.store.zarr_groups", "its shape should be <shape>"): "part of '<path>/<name> in <store> is corrupt'",
}
"""Errors that trak itself catches, by module and the beginning of their message, and what becomes of them."""

HEAD = """\
<!-- Written by `python docs/errors_list.py`; do not edit. -->

# Every error, and what to do

The {count} messages of the errors that trak raises, by the part of the library that raises them. Each names
the value that is wrong, or what is missing, and says what to do. `<name>` stands for a value that the message
has in its place, `[...]` for a part that it has only sometimes. After *did you mean* stands the nearest name,
or all of them if none is near. `StoreError` is a `ValueError`.

To find a message, search this page for some words of it that are no values. An error that the model or the
task raises is not listed: it keeps its own words, and a note below them names the batch.

This page is generated from the source of `trak/` by `python docs/errors_list.py`, and a test fails while it
is not up to date.
"""


class Error(NamedTuple):
    """One place of the source where an error is made."""

    module: str
    where: str
    """The function or method, such as TRAKer.score."""
    kind: str
    """The exception's name."""
    message: str
    """With <names> for values."""
    line: int

    @property
    def area(self) -> str:
        package = ".".join(self.module.split(".")[:2])
        return package if package in AREAS else "trak"

    @property
    def caught(self) -> bool:
        """Whether trak itself catches it, so that nobody sees it."""
        return any(self.module == module and self.message.startswith(begin) for module, begin in CAUGHT)


def read(root: Path = ROOT / "trak") -> list[Error]:
    """Every error that the modules under `root` make, in the order of the source."""
    trees = {_module(path, root): ast.parse(path.read_text()) for path in sorted(root.rglob("*.py"))}
    own = {
        node.name: any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(_is_exception(base) for base in node.bases)
    }
    return [error for module, tree in trees.items() for error in _Reader(module, own).read(tree)]


def parse(module: str, source: str) -> list[Error]:
    """Every error that one module makes."""
    return _Reader(module, {}).read(ast.parse(source))


def page(errors: Iterable[Error]) -> str:
    """The page, MyST Markdown."""
    shown = [error for error in errors if not error.caught]
    lines = [HEAD.format(count=len(shown))]
    for area, title in AREAS.items():
        lines += [f"(errors-{area.replace('.', '-')})=", f"## {title}", ""]
        of_area = [error for error in shown if error.area == area]
        for module, group in groupby(of_area, lambda error: error.module):
            lines += [f"(errors-in-{module.replace('.', '-').replace('_', '-')})=", f"### {module}", ""]
            lines += [f"- {_code(error.message)}\\\n  {error.kind} by `{error.where}`" for error in group]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _module(path: Path, root: Path) -> str:
    parts = [root.name, *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


def _is_exception(node: ast.expr) -> bool:
    found = getattr(builtins, node.id, None) if isinstance(node, ast.Name) else None
    return isinstance(found, type) and issubclass(found, Exception)


class _Reader(ast.NodeVisitor):
    """Finds the calls that make an exception, with the function that each is in."""

    def __init__(self, module: str, own: dict[str, bool]) -> None:
        self._module, self._own = module, own
        self._scopes: list[ast.ClassDef | ast.FunctionDef] = []
        self._found: list[Error] = []

    def read(self, tree: ast.Module) -> list[Error]:
        self.visit(tree)
        return self._found

    def _enter(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        self._scopes.append(node)
        self.generic_visit(node)
        self._scopes.pop()

    visit_ClassDef = _enter  # noqa: N815
    visit_FunctionDef = _enter  # noqa: N815

    def visit_Raise(self, node: ast.Raise) -> None:
        if isinstance(node.exc, ast.Name) and _is_exception(node.exc):
            self._add(node.exc.id, "", node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if self._own.get(name):
            return  # its own __init__ has the words
        if _is_exception(node.func) or name in self._own:
            kind = name
        elif ast.unparse(node.func) == "super().__init__" and (kind := self._own_exception()):
            pass
        else:
            return
        messages = [argument for argument in node.args if _has_text(argument)] or node.args[-1:]
        self._add(kind, self._render(messages[-1]) if messages else "", node.lineno)

    def _own_exception(self) -> str | None:
        return next((s.name for s in self._scopes if isinstance(s, ast.ClassDef) and s.name in self._own), None)

    def _add(self, kind: str, message: str, line: int) -> None:
        names = [scope.name for scope in self._scopes]
        where = ".".join(name for name in names if name != "__init__") or self._module
        self._found.append(Error(self._module, where, kind, " ".join(message.split()), line))

    def _render(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=values):
                return "".join(map(self._render, values))
            case ast.FormattedValue(value=value):
                return self._render(value)
            case ast.IfExp(body=body, orelse=orelse) if _has_text(body) or _has_text(orelse):
                one, other = self._render(body), self._render(orelse)
                return f"[{one or other}]" if not (one and other) else f"{one}|{other}"
            case ast.BinOp(left=left, op=ast.Add(), right=right) if _has_text(left) or _has_text(right):
                return self._render(left) + self._render(right)
            case ast.BinOp(left=left, op=ast.Mult()) if _has_text(left):
                return f"[{self._render(left)}]"
            case ast.Call(func=ast.Name(id="did_you_mean")):
                return "did you mean <nearest>?"
            case ast.Call(func=ast.Name(id=name), args=[]) if texts := [*self._returned(name)]:
                return "|".join(map(self._render, texts))
            case ast.Name(id=name) if texts := [*self._assigned(name)]:
                return "|".join(map(self._render, texts))
        return f"<{_name(node)}>"

    def _returned(self, name: str) -> Iterator[ast.expr]:
        """The text that a function inside of the ones around returns."""
        for node in (node for scope in self._scopes for node in ast.walk(scope)):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                returned = node.body[-1]
                if isinstance(returned, ast.Return) and returned.value is not None and _has_text(returned.value):
                    yield returned.value

    def _assigned(self, name: str) -> Iterator[ast.expr]:
        """The texts that the function gives to a variable, if it gives it nothing else."""
        function = next((s for s in reversed(self._scopes) if isinstance(s, ast.FunctionDef)), None)
        given = [
            node.value
            for node in ast.walk(function or ast.Module([], []))
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
        ]
        if all(map(_has_text, given)):
            yield from given


def _has_text(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, str)
        case ast.JoinedStr():
            return True
        case ast.IfExp(body=body, orelse=orelse):
            return _has_text(body) and _has_text(orelse)
        case ast.BinOp(left=left, op=ast.Add() | ast.Mult(), right=right):
            return _has_text(left) or _has_text(right)
    return False


_SAME = {"int", "float", "str", "list", "tuple", "repr", "sorted", "shown", "without_secrets", "map", "next", "iter"}


def _name(node: ast.expr) -> str:
    """A short name for the value of an expression."""
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.Name(id=name):
            return name.strip("_")
        case ast.Attribute(value=ast.Call(func=ast.Name(id="type"), args=[of]), attr="__name__"):
            return f"type of {_name(of)}"
        case ast.Attribute(value=of, attr="shape" | "dtype" | "device" as attr):
            return f"{attr} of {_name(of)}"
        case ast.Attribute(attr=attr):
            return attr.strip("_")
        case ast.Subscript(value=ast.Attribute(attr="shape") as of):
            return _name(of)
        case ast.Tuple(elts=parts):
            return ", ".join(map(_name, parts))
        case ast.Compare(left=of):
            return _name(of)
        case ast.Subscript(value=of) | ast.Starred(value=of) | ast.UnaryOp(operand=of):
            return _name(of)
        case ast.ListComp(elt=of) | ast.GeneratorExp(elt=of):
            return _name(of)
        case ast.BoolOp(values=[of, *_]) | ast.BinOp(left=ast.Constant(), right=of) | ast.BinOp(left=of):
            return _name(of)
        case ast.Call(func=ast.Name(id="len" | "sum"), args=[of]):
            return f"number of {_name(of)}"
        case ast.Call(func=ast.Attribute(attr="join"), args=[of]):
            return _name(of)
        case ast.Call(func=ast.Name(id=name), args=[*_, of]) if name in _SAME:
            return _name(of)
        case ast.Call(func=ast.Name(id=name)):
            return name.strip("_").replace("_", " ")
        case ast.Call(func=ast.Attribute(attr="sum" | "count_undone", value=of)):
            return f"number of {_name(of)}"
        case ast.Call(func=ast.Attribute(value=ast.Name(id="np" | "torch")), args=[of, *_]):
            return _name(of)
        case ast.Call(func=ast.Attribute(value=of)):
            return _name(of)
    return ast.unparse(node)


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    new = page(read())
    if parser.parse_args().check:
        return int(not PAGE.exists() or PAGE.read_text() != new)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
