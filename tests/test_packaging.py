"""What is built for package indexes: its contents, its page, and its types as a user's mypy reads them."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

import trak

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "tests" / "typing" / "user_script.py"
LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "output", "_build")
REVEALED = {
    "attribution": "trak.attribution.results.StoredAttribution",
    "helpful.indices": "numpy.ndarray",
    "helpful.scores": "numpy.ndarray",
    "attribution.scores": "numpy.ndarray",
    "attribution.shape": "tuple[int, int]",
    "attribution.report": "pathlib.Path",
    "truth": "trak.evaluation.ground_truth.GroundTruth",
    "result": "trak.evaluation.linear_datamodeling_score.LDS",
    "result.mean": "float",
    "scores": "numpy.ndarray",
    "reopened": "trak.attribution.results.StoredAttribution",
}


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel made of it."""
    source, out = tmp_path_factory.mktemp("source") / "trak", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A fresh environment with the wheel, which finds what it depends on where these tests do."""
    home = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", built[1])
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path for path in (ROOT / "trak").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"trak/py.typed", "trak/visualization/page/report.html", "trak/distributed/planning/defaults.json"} <= names
    assert {Path(name).suffix for name in names} <= {".py", ".typed", ".html", ".css", ".js", ".json"}


def test_the_sdist_holds_all_that_the_tests_need(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for folder in ("tests", "docs", "examples", "benchmarks"):
        files = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
        wanted = {path.as_posix() for path in files if not {"output", "_build", "__pycache__"} & set(path.parts)}
        assert wanted - names == set()
    assert {"Makefile", "constraints.txt", "CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md"} <= names


def test_package_indexes_accept_the_page_and_can_show_all_of_it(built):
    run(sys.executable, "-m", "twine", "check", "--strict", *built)
    with zipfile.ZipFile(built[1]) as wheel:
        (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        page = wheel.read(metadata).decode()
    assert (ROOT / "PACKAGE.md").read_text() in page
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links
    assert all(link.startswith("https://") for link in links)


def test_the_page_s_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "PACKAGE.md").read_text(), re.S)
    model = torch.nn.Linear(4, 3)
    for name in ("run0.pt", "run1.pt"):
        torch.save({key: torch.rand_like(value) for key, value in model.state_dict().items()}, name)
    loader = [(torch.rand(12, 4), torch.arange(12) % 3)]
    names = {"model": model, "train_loader": loader, "test_loader": loader}
    exec(block, names)
    assert names["helpful"].indices.shape == (12, 10)
    assert Path("report.html").exists()


def test_the_wheel_works_where_it_is_installed(installed, tmp_path):
    program = "import trak; print(trak.__file__, trak.__version__); trak.test_install()"
    printed = run(installed, "-I", "-c", program, cwd=tmp_path)
    assert str(installed.parent.parent) in printed
    assert trak.__version__ in printed
    assert printed.rstrip().endswith(": ok")


def test_the_console_command_answers_where_the_wheel_is_installed(installed, tmp_path):
    (command,) = installed.parent.glob("trak*")
    assert run(command, "--help", cwd=tmp_path).startswith("usage: trak ")
    done = subprocess.run([command, "info", "nowhere"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("trak: ")


def test_types_are_strict_and_tell_a_user_what_things_are(installed, tmp_path, request):
    """mypy as a user runs it on the script: with the wheel, strict, and without this repository's settings."""
    lines = SCRIPT.read_text().splitlines()
    body = next(node for node in ast.parse(SCRIPT.read_text()).body if getattr(node, "name", "") == "main")
    end = body.end_lineno
    lines[end:end] = [f"    reveal_type({what})" for what in REVEALED]
    (tmp_path / "user_script.py").write_text("\n".join(lines) + "\n")
    cache = request.config.cache.mkdir("mypy_of_a_user")
    printed = run(
        sys.executable, "-m", "mypy", "--strict", "--config-file=/dev/null", "--python-executable", installed,
        "--cache-dir", cache, "user_script.py", cwd=tmp_path,
    )  # fmt: skip
    found = re.findall(r'Revealed type is "(.*)"', printed)
    for (what, expected), revealed in zip(REVEALED.items(), found, strict=True):
        assert expected in revealed, (what, revealed)
