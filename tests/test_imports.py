"""Imports run one way between the packages of the library, and never in a circle between its modules."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trak"
ORDER = (
    "_utils", "inputs", "tasks", "projectors", "gradients", "store", "scoring", "visualization", "distributed",
    "attribution",
)  # fmt: skip
"""Each imports those before it alone."""
ABOVE = {"evaluation", "baselines", "analysis", "integrations", "testing", "cli"}
"""They import all of `ORDER`, and of each other only what is named here."""
MAY_USE = {"analysis": {"evaluation"}, "testing": {"baselines"}, "cli": ABOVE}
SHIMS = {"gradient_computers", "modelout_functions", "savers", "score_computers", "utils"}
"""Names of traker 0.3.2."""
ROOT = {"__init__", "__main__", "version", *SHIMS}


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def existing(name):
    """The module that a dotted name is in, or None if it is not one of the library's."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def imports(source, module, is_package):
    """The library's modules that a module's source imports, in whatever form and place."""
    package = module if is_package else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            names = [node.args[0].value] if function in {"import_module", "__import__"} else []
        else:
            continue
        for name in names:
            if isinstance(name, str) and name.split(".")[0] == "trak" and (there := existing(name)):
                found.add(there)
    return found - {module}


GRAPH = {
    name: imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py") for name, path in MODULES.items()
}


def room(module):
    return module.split(".")[1] if "." in module else None


def test_the_package_has_sixteen_rooms_and_a_few_lines_beside_them():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == {*ORDER, *ABOVE}
    assert len(folders) <= 16
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT
    for shim in SHIMS:
        statements = ast.parse((PACKAGE / f"{shim}.py").read_text(encoding="utf-8")).body
        assert len(statements) == 2, shim  # a docstring and an import


@pytest.mark.parametrize("module", [name for name in GRAPH if room(name) and room(name) not in SHIMS | {"__main__"}])
def test_imports_run_one_way(module):
    own = room(module)
    for other in GRAPH[module]:
        theirs = room(other)
        if theirs in (own, "version"):
            continue
        assert theirs is not None, f"{module} imports the package itself"
        if own in ORDER:
            assert theirs in ORDER[: ORDER.index(own)], f"{module} imports {other}"
        else:
            assert theirs in {*ORDER, *MAY_USE.get(own, ())}, f"{module} imports {other}"


def test_no_module_imports_itself_by_way_of_others():
    # A package's __init__ gathers the names of its modules, which import each other and never it.
    modules = {name: {other for other in found if other in GRAPH} for name, found in GRAPH.items()}
    try:
        TopologicalSorter(modules).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    "source",
    [
        "import trak.cli.top",
        "import trak.cli.top as top",
        "from trak.cli import top",
        "from trak.cli.top import run",
        "def f():\n    from trak.cli import top",
        "if TYPE_CHECKING:\n    from trak.cli import top",
        "from ..cli import top",
        "from ..cli.top import run",
        "importlib.import_module('trak.cli.top')",
        "__import__('trak.cli.top')",
    ],
)
def test_every_form_of_import_is_seen(source):
    assert "trak.cli.top" in imports(source, "trak.store.table", False)
