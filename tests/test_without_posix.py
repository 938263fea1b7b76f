"""The store, resuming and the command line where Python lacks what only POSIX has, as on Windows: there are no row
locks and no forks, and files are written, synced and reserved in other ways. As a script, `python THIS_FILE DIR`, it
does what a killed run and two ranks do there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import HELPERS, ROOT, contents, differences, report
from shared_runs import Run, without_tops

PATHS = [os.fspath(HELPERS / "without_posix"), os.fspath(ROOT), os.fspath(HELPERS)]
CORE = {
    "tests/store/test_feature_store.py": "TestLocal and not come_back_exactly",
    "tests/store/test_location.py": "",
    "tests/_utils/test_platform.py": "",
    "tests/cli/test_cli.py": "",
}
"""Files, and which of their tests."""
LONG = (
    "_utils", "store", "cli", "scoring", "inputs", "attribution/test_api.py", "attribution/test_traker.py",
    "attribution/test_results.py", "attribution/test_interruptions.py", "evaluation/test_retraining.py",
)  # fmt: skip


def passes(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
    # Neither the workers nor the coverage of the run that this is a test of.
    environment = {name: value for name, value in environment.items() if not name.startswith(("PYTEST_", "COV_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5_000:]
    return run.stdout


def test_the_store_and_the_command_line_work():
    wanted = [f"({Path(path).name}{f' and {names}' * bool(names)})" for path, names in CORE.items()]
    assert " passed" in passes(*CORE, "-k", " or ".join(wanted))


@pytest.mark.slow
def test_everything_that_needs_no_fork_works():
    assert " passed" in passes(*(f"tests/{name}" for name in LONG), "-m", "not slow")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return report(__file__, tmp_path_factory.mktemp("runs"), PYTHONPATH=os.pathsep.join(PATHS), TQDM_DISABLE="1")


def test_nothing_of_posix_is_there(found):
    assert found["there"] == []


def test_a_killed_run_resumes_and_ends_bit_identical(found):
    assert found["killed_with_rows"] > 0
    assert found["undone_when_killed"] > 0
    assert found["different_when_resumed"] == []
    assert found["files"] > 40


def test_two_ranks_share_the_rows_and_end_bit_identical(found):
    assert found["different_of_ranks"] == []
    assert found["same_scores"]
    assert found["loaded_by_rank_0"] > 0


def drive(root):
    import numpy as np

    from trak.store import open_store

    def child(what, **environment):
        command = [sys.executable, __file__, str(root), what]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )

    there = [name for name in ("fork", "fdatasync", "posix_fallocate", "pread", "pwrite") if hasattr(os, name)]
    second = child("rank", RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    victim = child("victim")
    expected = Run(root / "alone").attribute().scores
    for _ in range(20):
        victim.stdout.readline()  # an example was loaded
    victim.kill()
    victim.wait()
    table = open_store(root / "victim").table(0)
    killed = {"killed_with_rows": int(table.is_done().sum()), "undone_when_killed": table.count_undone()}
    Run(root / "victim").attribute().scores  # noqa: B018
    os.environ.update(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
    second.stdout.readline()  # it is ready
    second.stdin.write("go\n")
    second.stdin.flush()
    loaded = []
    scores = Run(root / "ranks").attribute(loaded.append).scores
    if second.wait():
        raise RuntimeError("the second rank failed")
    whole = without_tops(contents(root / "alone"))
    print(
        json.dumps(
            {
                "there": there,
                **killed,
                "files": len(whole),
                "different_when_resumed": differences(without_tops(contents(root / "victim")), whole),
                "different_of_ranks": differences(without_tops(contents(root / "ranks")), whole),
                "same_scores": bool(np.array_equal(scores, expected)),
                "loaded_by_rank_0": len(loaded),
            }
        )
    )


def play(root, what):
    run = Run(root / ("ranks" if what == "rank" else "victim"))
    if what == "victim":
        run.attribute(lambda index: print(index, flush=True)).scores  # noqa: B018
        sys.stdin.read()
    else:
        print("ready", flush=True)
        sys.stdin.readline()
        run.attribute().scores  # noqa: B018


if __name__ == "__main__":
    if len(sys.argv) == 2:
        drive(Path(sys.argv[1]))
    else:
        play(Path(sys.argv[1]), sys.argv[2])
