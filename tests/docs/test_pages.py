"""The pages of documentation: their code runs, and their links lead somewhere."""

import re

import pytest
from pages import DOCS, FENCE, PAGES, ROOT, SETUPS, TUTORIALS, WITH_CODE, executed, setup_of, shown

from trak.tasks import TASKS

OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md"]


@pytest.mark.parametrize("page", [p for p in WITH_CODE if TUTORIALS not in p.parents], ids=shown)
def test_the_code_of_a_page_runs_from_its_first_block_to_its_last(page, tmp_path):
    pytest.importorskip("transformers")
    with executed(page, tmp_path):
        pass


FAILING = """# Page

```python
import trak
x = 1
```

```{code-block} python
not run
```

```python
@trak.tasks.register_task("made up")
class Mine(trak.tasks.Regression):
    pass
1 / (x - 1)
```
"""


def test_a_failing_block_is_told_by_page_line_and_code_and_what_was_registered_is_forgotten(tmp_path, monkeypatch):
    page, known = tmp_path / "page.md", dict(TASKS)
    page.write_text(FAILING)
    monkeypatch.setattr("pages.setup_of", lambda page: page.with_suffix(".py"))
    with pytest.raises(pytest.fail.Exception) as caught:
        executed(page, tmp_path).__enter__()
    assert caught.value.msg.startswith("page.md, line 16: ZeroDivisionError: division by zero\n\n@trak")
    assert known == TASKS


def test_every_setup_belongs_to_a_page_with_code():
    assert set(SETUPS.glob("**/*.py")) <= {setup_of(p) for p in WITH_CODE}


def test_python_that_is_not_run_says_why():
    for page in PAGES:
        text = page.read_text()
        for fence in FENCE.finditer(text):
            where = f"{shown(page)}, line {text.count(chr(10), 0, fence.start()) + 1}"
            if re.fullmatch(r"\{code(-block)?\} *python", fence[3].strip()):
                assert text[: fence.start()].rstrip().endswith("-->"), f"{where}: say in a comment why it can't run"
            assert fence[3].strip() not in ("py", "python3"), f"{where}: call it python"


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=shown)
def test_every_relative_link_leads_to_a_file_and_every_fragment_to_a_heading(page):
    prose = re.sub(r"<!--.*?-->|`[^`\n]*`", "", FENCE.sub("", page.read_text()), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{shown(page)}: nothing is at {target}"
        assert found.is_relative_to(ROOT), f"{shown(page)}: {target} is outside of the repository"
        if fragment and found.suffix == ".md":
            assert fragment in anchors(found), f"{shown(page)}: no heading of {shown(found)} is #{fragment}"


def anchors(page):
    """Fragments of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    texts = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def test_every_page_is_in_one_table_of_contents():
    pages, listed = PAGES[1:], []
    for page in pages:
        for fence in FENCE.finditer(page.read_text()):
            if fence[3].strip() == "{toctree}":
                for entry in re.findall(r"^(?:.*<)?(\w[\w/*.-]*)>?$", fence[4], flags=re.MULTILINE):
                    listed += page.parent.glob(f"{entry}.md")
    assert sorted(listed) == sorted(p for p in pages if p != DOCS / "index.md")
