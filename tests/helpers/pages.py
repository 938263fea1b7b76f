"""The pages of documentation and the code in them."""

import re
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from trak.baselines import BASELINES
from trak.gradients import ENGINES
from trak.gradients.layers import LAYERS, OPERATIONS
from trak.gradients.layers.registry import DECOMPOSITIONS
from trak.projectors import PROJECTORS
from trak.tasks import TASKS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIALS = DOCS / "tutorials"
SETUPS = ROOT / "tests" / "docs" / "setup"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.glob("**/*.md") if "_build" not in p.parts)]

FENCE = re.compile(r"^( *)(`{3,}|~{3,})([^\n]*)\n(.*?)^\1\2 *$", flags=re.DOTALL | re.MULTILINE)
_REGISTRIES = [TASKS, BASELINES, ENGINES, PROJECTORS, LAYERS, OPERATIONS, DECOMPOSITIONS]


def shown(page):
    """The name to call a page by."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def blocks(page):
    """(line of the page, code) of each block of Python that is to run."""
    text = page.read_text()
    for fence in FENCE.finditer(text):
        if fence[3].strip() == "python":
            yield text.count("\n", 0, fence.start(4)) + 1, re.sub(f"^{fence[1]}", "", fence[4], flags=re.MULTILINE)


WITH_CODE = [page for page in PAGES if any(blocks(page))]


def setup_of(page):
    """Where the names are made that a page takes for granted; there need be none."""
    return SETUPS / page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).with_suffix(".py")


def run(page, line, code, names):
    """Run a block. Its code keeps the page's name and lines, so that a traceback shows them."""
    try:
        exec(compile("\n" * (line - 1) + code, page, "exec"), names)
    except BaseException as error:
        where = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(page)]
        failed = error.lineno if isinstance(error, SyntaxError) else where[-1] if where else line
        said = f"{shown(page)}, line {failed}: {type(error).__name__}: {error}"
        pytest.fail(f"{said}\n\n{code}\n{''.join(traceback.format_exception(error))}", pytrace=False)


@contextmanager
def executed(page, folder):
    """The names that a page's blocks define, run in order in an empty folder; what they register is forgotten after."""
    before, threads = [dict(registry) for registry in _REGISTRIES], torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(folder)
        torch.set_num_threads(1)
        names = {"__name__": "__main__"}
        setup = setup_of(page)
        try:
            if setup.exists():
                run(setup, 1, setup.read_text(), names)
            for line, code in blocks(page):
                run(page, line, code, names)
            yield names
        finally:
            torch.set_num_threads(threads)
            for registry, entries in zip(_REGISTRIES, before, strict=True):
                registry.clear()
                registry.update(entries)
