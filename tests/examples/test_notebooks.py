"""The notebooks run from start to end, and are kept with what they show."""

import importlib
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users|private|opt)/|[A-Z]:\\\\")


def outputs(book):
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def figures(book):
    """Numbers of the lines that a notebook prints of scores, by what is said before them."""
    text = "".join(output.get("text", "") for output in outputs(book))
    return {name: float(value) for name, value in re.findall(r"\b(LDS|AUROC|loss) (\d\.\d+)", text)}


@pytest.fixture
def notebooks(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("notebooks")


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == ["quickstart.ipynb", "text.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_the_outputs_of_one_run_small_and_without_paths_of_a_machine(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("text/html" in output.get("data", {}) for output in outputs(book))
    assert not [o for o in outputs(book) if o.output_type == "error" or o.get("name") == "stderr"]
    assert not MACHINE.search(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 1e6


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_is_kept_with(path, notebooks, tmp_path):
    book, kept = notebooks.executed(path, tmp_path), nbformat.read(path, as_version=4)
    kinds = [[sorted(output.get("data", {"text": ""})) for output in outputs(one)] for one in (book, kept)]
    assert kinds[0] == kinds[1]
    assert not [o for o in outputs(book) if o.get("name") == "stderr"]
    found = figures(book)
    assert found
    # Sums in another order train other models.
    assert found == pytest.approx(figures(kept), abs=0.15)
