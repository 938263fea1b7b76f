"""What users import, and what it costs."""

import importlib
import importlib.util
import inspect
import json
import pkgutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import trak
from trak.__main__ import main

# The kernels' own tests run where there is Triton.
LEFT_OUT = {"trak.__main__"} | (
    {"trak.projectors.triton_kernels"} if importlib.util.find_spec("triton") is None else set()
)
MODULES = [m.name for m in pkgutil.walk_packages(trak.__path__, "trak.") if m.name not in LEFT_OUT]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module):
    found = importlib.import_module(module)
    assert found.__doc__
    for name, value in vars(found).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name}"
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if not method.startswith(("_", "test_")) and callable(function):
                    assert inspect.getdoc(getattr(value, method)), f"{module}.{name}.{method}"


def test_every_public_name_has_one_entry_in_the_reference(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "docs" / "_ext")
    entries = importlib.import_module("entries")
    pages = defaultdict(list)
    for page, name in entries.described():
        pages[name].append(page)
    expected = {
        f"{entries.home(value)}.{name}"
        for module in MODULES
        if "._" not in module
        for name, value in vars(importlib.import_module(module)).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module and entries.is_described(value)
    }
    missing = sorted(expected - pages.keys())
    assert not missing, f"docs/api has no entry for {missing}: add `.. automodule::` of their module to a page"
    twice = {name: where for name, where in pages.items() if len(where) > 1}
    assert not twice, f"described more than once, on these pages of docs/api: {twice}"


def test_published_names_keep_importing():
    for module, names in {
        "trak": ["TRAKer", "test_install"],
        "trak.utils": ["test_install"],
        "trak.modelout_functions": [
            "AbstractModelOutput", "ImageClassificationModelOutput", "IterativeImageClassificationModelOutput",
            "TextClassificationModelOutput", "CLIPModelOutput",
        ],
        "trak.projectors": ["AbstractProjector", "BasicProjector", "CudaProjector", "NoOpProjector", "ProjectionType"],
        "trak.gradient_computers": ["FunctionalGradientComputer", "IterativeGradientComputer"],
    }.items():  # fmt: skip
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_import_needs_its_five_dependencies_alone_and_takes_under_0_3_s_beyond_them():
    program = """
import importlib.metadata, json, sys, time
import torch, zarr
before = set(sys.modules)
start = time.perf_counter()
import trak
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "new": sorted({m.split(".")[0] for m in set(sys.modules) - before})}))
"""
    found = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    standard = set(sys.stdlib_module_names) | {"trak", "torch", "filelock", "numpy", "tqdm", "zarr"}
    assert set(found["new"]) <= standard
    print(f"import trak beyond torch and zarr: {found['seconds']:.3f} s")


def test_import_and_construction_leave_logging_levels_alone(tmp_path):
    program = """
import logging, sys
logging.getLogger("trak").setLevel(logging.CRITICAL)
logging.getLogger().setLevel(logging.ERROR)
before = {name: logging.getLogger(name).level for name in ("", "trak")}
import torch, trak
model = torch.nn.Linear(2, 1)
trak.TRAKer(model, "regression", 3, sys.argv[1], proj_dim=4)
assert before == {name: logging.getLogger(name).level for name in before}
trak.TRAKer(model, "regression", 3, sys.argv[1], proj_dim=4, logging_level="DEBUG")
assert logging.getLogger("trak").level == logging.DEBUG
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], check=True)


@pytest.mark.parametrize("function", [trak.attribute, trak.Attribution.open])
def test_options_are_listed_with_their_types(function):
    parameters = inspect.signature(function).parameters.values()
    assert not [p.name for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert not [p.name for p in parameters if p.annotation is p.empty and p.name != "cls"]


def test_attribute_takes_every_option_of_traker():
    obsolete = {
        "load_from_save_dir", "gradient_computer", "saver", "score_computer", "use_half_precision",
        "proj_max_batch_size",
    }  # fmt: skip
    assert (
        inspect.signature(trak.TRAKer).parameters.keys() - obsolete
        <= inspect.signature(trak.attribute).parameters.keys()
    )


def test_self_check_prints_versions_devices_engine_and_projector(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for part in (
        f"trak {trak.__version__}",
        "torch ",
        "zarr ",
        "device: ",
        "default sketch",
        "engine hooks",
        ": ok",
    ):
        assert part in printed
    trak.test_install()
    assert capsys.readouterr().out.count("\n") == printed.count("\n")
