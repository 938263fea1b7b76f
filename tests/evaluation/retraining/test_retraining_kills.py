"""Retraining that is killed and run again. All runs are forks of one process (`python THIS_FILE DIR`) that has imported
torch once."""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest
from processes import differences, report

SUBSETS, SEEDS, N, SECONDS = 8, 2, 20, 0.02
KILLS = 7


def data():
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(N + 5, 3, generator=generator), torch.randint(2, (N + 5,), generator=generator)


def run(directory, log, jobs=1):
    """What a user would run, and run again; every training writes a line to `log`."""
    import torch

    from trak.evaluation import retrain

    x, y = data()

    def train(indices, seed):
        with open(log, "a") as lines:
            lines.write(f"{os.getpid()} {seed}\n")
        torch.manual_seed(seed)
        model = torch.nn.Linear(3, 2)
        torch.nn.functional.cross_entropy(model(x[indices]), y[indices]).backward()
        time.sleep(SECONDS)
        with torch.no_grad():
            model.weight -= model.weight.grad
        return model

    return retrain(
        train, "image_classification", [(x[N:], y[N:])], train_set_size=N, save_dir=directory, subsets=SUBSETS,
        seeds=SEEDS, jobs=jobs, progress=False,
    )  # fmt: skip


def fork(work):
    """Run `work` in a child; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def done(work):
    _, status = os.waitpid(fork(work), 0)
    if status:
        raise RuntimeError(f"child ended with status {status}")


def kill(child):
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def trained(log):
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def contents(directory):
    """A hash of every model's numbers, and names of all other files; how long training took is left out."""
    chunks = {str(p.relative_to(directory)): p for p in directory.rglob("*") if p.is_file() and p.name != ".lock"}
    return {n: hashlib.sha256(p.read_bytes()).hexdigest() if p.name == "0" else "" for n, p in chunks.items()}


def attempt(directory, expected, jobs, when):
    """Kill a run when `when()` says so, go on to the end, and tell how it went."""
    log = directory.with_suffix(".log")
    child = fork(lambda: run(directory, log, jobs))
    when(log)
    killed = kill(child)
    workers = {int(pid) for pid, _ in trained(log)} - {child}
    left = len(list(directory.glob("models/*/c/0/0")))
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    before = len(trained(log))
    done(lambda: run(directory, log, jobs))
    found = contents(directory)
    return {
        "killed": killed,
        "left": left,
        "trained_again": len(trained(log)) - before,
        "workers": len(workers),
        "workers_alive": sum(map(alive, workers)),
        "different": differences(found, expected),
    }


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def drive(root):
    """Everything, as JSON on the last line of stdout."""
    import torch

    # Nothing that starts a thread may run before forking, zarr's event loop among it.
    import trak.evaluation  # noqa: F401

    torch.set_num_threads(1)
    done(lambda: run(root / "whole", root / "whole.log"))
    expected, rng = contents(root / "whole"), random.Random(0)

    def begun(number):
        def wait(log):
            deadline = time.monotonic() + 120
            while len(trained(log)) < number:
                assert time.monotonic() < deadline, f"only {len(trained(log))} models begun in two minutes"
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 2 * SECONDS))

        return wait

    alone = [attempt(root / f"alone-{i}", expected, 1, begun(2 * i + 1)) for i in range(KILLS)]
    several = attempt(root / "several", expected, 2, begun(5))
    children = [fork(lambda: run(root / "side by side", root / "both.log")) for _ in range(2)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    found = contents(root / "side by side")
    print(
        json.dumps(
            {
                "models": SUBSETS * SEEDS,
                "alone": alone,
                "several": several,
                "side_by_side": {"statuses": statuses, "same": found == expected},
            }
        )
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return report(__file__, tmp_path_factory.mktemp("kills"), OMP_NUM_THREADS="1")


def test_a_killed_run_continues_bit_identical(found):
    assert [attempt["different"] for attempt in found["alone"]] == [[]] * KILLS


def test_a_kill_costs_the_model_under_way_alone(found):
    for attempt in found["alone"]:
        assert attempt["trained_again"] == found["models"] - attempt["left"]
    half_way = [a for a in found["alone"] if a["killed"] and 0 < a["left"] < found["models"]]
    assert len(half_way) >= KILLS - 2


def test_several_processes_killed_with_their_parent_end_and_the_rerun_is_bit_identical(found):
    attempt = found["several"]
    assert attempt["killed"]
    assert attempt["workers"] >= 1
    assert attempt["workers_alive"] == 0
    assert 0 < attempt["left"] < found["models"]
    assert attempt["trained_again"] == found["models"] - attempt["left"]
    assert attempt["different"] == []


def test_two_runs_side_by_side_do_not_disturb_each_other(found):
    assert found["side_by_side"] == {"statuses": [0, 0], "same": True}


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
