"""Workflows, templates, the citation and the contributor's guide name only what exists."""

import re
import tomllib
from pathlib import Path

import pytest

import trak

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml"))
in_the_repository = pytest.mark.skipif(not WORKFLOWS, reason="source distributions have no workflows")


def targets():
    """Targets of the Makefile."""
    (listed,) = re.findall(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return set(listed.split())


def loaded(path):
    # YAML 1.1 reads the key "on" as True.
    return {
        ("on" if key is True else key): value for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items()
    }


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def paths_in(text):
    """Words that look like a path of the repository."""
    return re.findall(r"(?<![\w./-])(?:\.?\w[\w.-]*/)+[\w.*-]*|(?<![\w./-])\w+\.(?:txt|toml|md|cff)\b", text)


def test_workflows_exist_for_tests_docs_and_lint():
    if not WORKFLOWS:
        pytest.skip("source distributions have no workflows")
    assert {path.stem for path in WORKFLOWS} == {"tests", "docs", "lint"}
    tests = loaded(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    assert {row["target"] for row in tests["linux"]["strategy"]["matrix"]["include"]} == {
        "test", "slow", "test-lowest", "test-latest",
    }  # fmt: skip
    assert {name.split("-")[0] for name in tests["other-systems"]["strategy"]["matrix"]["os"]} == {"macos", "windows"}


@in_the_repository
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_targets_and_paths_that_exist(path):
    workflow = loaded(path)
    named = [
        row["target"]
        for job in workflow["jobs"].values()
        for row in job.get("strategy", {}).get("matrix", {}).get("include", [])
    ]
    for step in steps(workflow):
        command = step.get("run", "")
        named += re.findall(r"\bmake ([\w-]+)", command)
        named_paths = paths_in(command) + step.get("with", {}).get("cache-dependency-path", "").split()
        missing = [each for each in named_paths if not (ROOT / each).exists()]
        assert not missing, f"{path.name}: {missing}"
    assert set(named) <= targets()


@in_the_repository
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_pins_what_it_uses(path):
    workflow = loaded(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used)
    for step in steps(workflow):
        if "setup-python" in step.get("uses", ""):
            assert step["with"]["cache"] == "pip"


@in_the_repository
@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_complete(path):
    form = loaded(path)
    assert {"name", "description", "body"} <= form.keys()
    identifiers = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(set(identifiers)) == len(identifiers)
    for field in form["body"]:
        assert field["attributes"].keys() & {"label", "value"}


def test_the_citation_names_this_version_and_the_paper():
    citation = loaded(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == trak.__version__
    assert citation["preferred-citation"]["url"] == "https://arxiv.org/abs/2303.14186"


def test_all_addresses_of_the_project_begin_alike():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    home = project["urls"]["Homepage"]
    ours = [url for name, url in project["urls"].items() if name != "Paper"]
    ours += [loaded(ROOT / "CITATION.cff")["repository-code"]]
    for path in [ROOT / "CONTRIBUTING.md", *FORMS, *(ROOT / ".github").glob("ISSUE_TEMPLATE/config.yml")]:
        ours += re.findall(r"https://github\.com/[^\s)]*trak[^\s)]*", path.read_text(encoding="utf-8"))
    assert all(url.startswith(home) for url in ours), ours


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/releasing.md"])
def test_a_guide_names_targets_and_paths_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"`([^`\n]+)`", text) + re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets()
    made = (".venv/", "dist/", "docs/_build/", "benchmarks/output/", "github.com/", "https:")
    missing = [each for each in paths_in(code) if not each.startswith(made) and not (ROOT / each).exists()]
    assert not missing
