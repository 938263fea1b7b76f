"""Private parts of dependencies: one module of the package for each dependency may use them."""

import ast
from pathlib import Path

import pytest

import trak

ROOT = Path(trak.__file__).parent
PRIVATE = {"torch": Path("_utils/torch_private.py"), "zarr": Path("_utils/zarr_private.py")}
UNDOCUMENTED = {"zarr.core"}
"""Without an underscore, but left out of the dependency's reference."""
DOCUMENTED = {"_asdict", "_exit"}
"""Of namedtuple and os."""


def private_uses(source, own):
    """(line, what) for everything private of other packages; `own` has the private names that the package defines."""
    tree = ast.parse(source)
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] != "trak":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                modules[alias.asname or alias.name] = name
                if is_private(name):
                    yield node.lineno, name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                if is_private(alias.name):
                    yield node.lineno, alias.name
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or is_dunder(node.attr) or node.attr in DOCUMENTED:
            continue
        name, root = dotted(node)
        if root in modules:
            if is_private(f"{modules[root]}{name}"):
                yield node.lineno, f"{modules[root]}{name}"
        elif node.attr.startswith("_") and root not in ("self", "cls") and node.attr not in own:
            yield node.lineno, f"?.{node.attr}"


def dotted(node):
    """The attributes of an expression, and the name that it begins with, if it is one."""
    name = ""
    while isinstance(node, ast.Attribute):
        node, name = node.value, f".{node.attr}{name}"
    return name, node.id if isinstance(node, ast.Name) else None


def is_dunder(name):
    return name.startswith("__") and name.endswith("__")


def is_private(name):
    package, *rest = name.split(".")
    if package in ("trak", "__future__"):
        return False
    hidden = any(part.startswith("_") and not is_dunder(part) for part in rest)
    return hidden or any(f"{name}.".startswith(f"{module}.") for module in UNDOCUMENTED)


def own_names(sources):
    """Private names of functions, classes and attributes that the package defines."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {alias.asname or alias.name for alias in node.names}
    return {name for name in found if name.startswith("_")}


def test_private_parts_of_dependencies_are_used_in_one_module_each():
    sources = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
    own = own_names(sources.values())
    found = [
        f"trak/{path.as_posix()}:{line} uses {what}; import it from trak/_utils/<package>_private.py"
        for path, source in sources.items()
        if path not in PRIVATE.values()
        for line, what in private_uses(source, own)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch._foreach_norm([])",
        "from torch import _VF",
        "from torch._C import DisableTorchFunction as D",
        "import torch._dynamo",
        "import torch as t\nt.nn._reduction",
        "from zarr.core.sync import sync",
        "import zarr\nzarr.core.sync.sync()",
        "from zarr import core",
        "def f(t): return t._version",
        "def f(x):\n    import numpy\n    return numpy._core",
    ],
)
def test_every_form_of_private_use_is_seen(source):
    assert list(private_uses(source, set()))


@pytest.mark.parametrize(
    "source", ["from trak.store import _x", "self._x", "import zarr\nzarr.__version__", "def f(x): return x._mine"]
)
def test_what_is_not_private_of_others_is_left_alone(source):
    assert not list(private_uses(source, {"_mine"}))
