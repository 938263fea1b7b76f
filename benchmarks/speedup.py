"""How much faster two single-thread workers are than one: python benchmarks/speedup.py

Workers are processes with the environment that torchrun gives them, and share one local store by claims. They are
started first; what is measured begins when all are ready, their imports and models behind them, and ends with the last
one. Featurizing is `trak.attribute` of a ResNet-9 (checkpoint, checks, Gram matrix and two targets included), scoring
is `attribution.scores` (checksums, solve and file included) of random stored features. Rounds with one and with two
workers take turns; the ratio is the one of the medians. Nothing else may run: two workers want two cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GOALS = {"featurizing": 1.8, "scoring": 1.7}


def featurizing(directory: Path, size: int) -> Callable[[], Any]:
    """Attributes two targets to `size` images in a new store."""
    import torch
    from models import CASES, plain_step

    import trak
    from trak.tasks import make_task

    torch.manual_seed(0)
    case = CASES["resnet9"]
    model = case.make().eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = case.batch(size)
    train = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=case.batch_size)
    plain_step(model, make_task(case.task), (images[: case.batch_size], labels[: case.batch_size]))
    targets = [(images[:2], labels[:2])]
    return lambda: trak.attribute(model, case.task, weights, train, targets, directory, proj_dim=2048, progress=False)


def scoring(directory: Path, size: int) -> Callable[[], Any]:
    """Computes all scores of a store that `fill` made."""
    from trak import Attribution

    return lambda: Attribution.open(directory, str(size), damping=3.0, weighting="identity").scores


def fill(directory: Path, targets: int, rows: int = 200_000, k: int = 2048) -> None:
    from run import filled, with_targets

    store, _ = filled(directory, rows, k)
    store.finalize(0, "identity", np.eye(k))
    with_targets(store, targets)


def work(name: str, directory: Path, size: int) -> None:
    """In a worker: get ready, say so, wait for a line, do it, say when it was done."""
    run = {"featurizing": featurizing, "scoring": scoring}[name](directory, size)
    print("ready", flush=True)
    sys.stdin.readline()
    start, scheduled = time.monotonic(), schedule()
    run()
    end = time.monotonic()
    running, queued = schedule() - scheduled
    print(json.dumps({"end": end, "running": running, "blocked": end - start - running - queued}), flush=True)


def schedule() -> np.ndarray:
    """Seconds that the main thread ran, and that it waited for a processor."""
    return np.array(Path("/proc/self/schedstat").read_text().split()[:2], np.float64) / 1e9


def together(name: str, directory: Path, size: int, workers: int) -> dict[str, float]:
    """Seconds of so many workers; and, of all of them, that they ran, and that they waited for locks and disks."""
    command = [sys.executable, __file__, "--worker", name, str(directory), str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    ranks = [
        {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers)}
        for rank in range(workers)
    ]
    started = [
        subprocess.Popen(command, env=rank, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for rank in ranks
    ]
    for worker in started:
        assert worker.stdout is not None
        if worker.stdout.readline() != "ready\n":
            raise RuntimeError("a worker ended before it was ready")
    begin = time.monotonic()
    ends = []
    for worker in started:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in started:
        output, _ = worker.communicate()
        if worker.returncode:
            raise RuntimeError("a worker failed")
        ends.append(json.loads(output.splitlines()[-1]))
    sums = {name: sum(end[name] for end in ends) for name in ("running", "blocked")}
    return {"seconds": max(end["end"] for end in ends) - begin, **sums}


def delete_scores(directory: Path, size: int) -> None:
    from trak.store import open_store

    open_store(directory, writable=True).experiment(str(size)).delete_scores()


def measured(name: str, size: int, rounds: int, where: Path | None) -> dict[str, Any]:
    """Rounds with one worker and with two, in turns."""
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(dir=where, prefix="trak-speedup-") as made:
        directory = Path(made)
        if name == "scoring":
            fill(directory / "store", size)
        for number in range(rounds):
            for workers, rows in found.items():
                store = directory / ("store" if name == "scoring" else f"{number}-{workers}")
                rows.append(together(name, store, size, workers))
                if name == "scoring":
                    delete_scores(store, size)
                last = rows[-1]
                sums = f"{last['running']:.1f} s running, {last['blocked']:.1f} s blocked in all"
                print(f"  {name}, {workers} worker(s): {last['seconds']:.1f} s; {sums}", flush=True)
    one, two = (statistics.median(row["seconds"] for row in rows) for rows in found.values())
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(*found.values(), strict=True)]
    print(
        f"{name}: {one:.1f} s by one worker, {two:.1f} s by two: {one / two:.2f} times as fast (rounds "
        f"{min(ratios):.2f} to {max(ratios):.2f}; goal {GOALS[name]:g})",
        flush=True,
    )
    return {"work": name, "size": size, "speed-up": one / two, "ratios": ratios, "one": found[1], "two": found[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=list(GOALS), default=list(GOALS), help="what to time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1536, help="examples that are featurized")
    parser.add_argument("--targets", type=int, default=4000, help="targets that 200,000 examples are scored for")
    parser.add_argument("--directory", type=Path, help="where stores are made; 5 GB (default: the temporary directory)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/speedup.json"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        name, directory, size = chosen.worker
        work(name, Path(directory), int(size))
        return
    sizes = {"featurizing": chosen.images, "scoring": chosen.targets}
    rows = [measured(name, sizes[name], chosen.rounds, chosen.directory) for name in chosen.work]
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
