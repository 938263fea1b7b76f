"""Times the library against what the hardware can do: `make bench`.

Every figure is a median over interleaved rounds, each call after one that warms it up, and a ratio
within this run, so that it means something on another machine. Prints a table, writes JSON.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import CASES, plain_step
from scaling import growing

import trak
from trak.gradients import HooksEngine, differentiable, featurize
from trak.inputs import batches
from trak.projectors import Accumulator, Factored, Projector, Sketch
from trak.scoring import Damping, Scorer, ScoringConfig, gram
from trak.store import Experiment, FeatureStore, RowValues, StoreConfig, Table
from trak.tasks import Task, make_task

PLENTY = 2**40


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in each round."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            function()
            wait()
            start = time.perf_counter()
            function()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(work: str, what: str, goal: float, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """A row of the table: our seconds in theirs."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    row = {
        "work": work, "figure": what, "median": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1],
        "goal": goal, "seconds": statistics.median(ours),
    }  # fmt: skip
    show(row)
    return row


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        show(row)
    return rows


def show(row: dict[str, Any]) -> None:
    spread = f"{row['lowest']:.2f} - {row['highest']:.2f}" if "lowest" in row else ""
    print(f"| {row['work']} | {row['figure']} | {row['median']:.2f} | {spread} | {row['goal']:g} |", flush=True)


def steps(
    name: str, projector: Projector, device: str = "cpu", task: Task | None = None
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A plain training step and the featurizing of the same batch."""
    torch.manual_seed(0)
    case = CASES[name]
    model, task = case.make().eval().to(device), task or make_task(case.task)
    batch = batches.to_device(case.batch(case.batch_size), torch.device(device))
    names = [parameter for parameter, _ in model.named_parameters()]
    engine = HooksEngine(model, task, names)
    projector.bind({parameter: p.shape for parameter, p in model.named_parameters()})

    def features() -> None:
        with differentiable(model, names):
            featurize(engine, projector, batch, 0, PLENTY)

    return lambda: plain_step(model, task, batch), features


def featurizing(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for name, projectors in (
        ("resnet9", ((Sketch(2048), 1.4), (Sketch(4096), 1.4))),
        ("resnet18", ((Sketch(4096), 1.5),)),
        ("bert", ((Sketch(4096), 1.1), (Factored(4096), 0.8))),
        ("gpt2", ((Sketch(4096), 1.1), (Factored(4096), 0.8))),
    ):
        for projector, goal in projectors:
            plain, features = steps(name, projector)
            seconds = interleaved({"plain": plain, "features": features}, rounds)
            work, what = f"{name}, {projector.name}, k = {projector.proj_dim}", "featurize ÷ plain forward + backward"
            rows.append(ratio(work, what, goal, seconds["features"], seconds["plain"]))
        peaks = [peak(name, kind) for kind in ("features", "plain")]
        rows.append(ratio(name, "peak memory ÷ plain forward + backward", 1.5, peaks[:1], peaks[1:]))
    return rows


def peak(name: str, kind: str) -> float:
    """Bytes that a step takes beyond the model and the batch, in a process of its own."""
    command = [sys.executable, __file__, "--peak", name, kind]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(name: str, kind: str) -> None:
    plain, features = steps(name, Sketch(4096))
    Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
    before = resident("VmRSS")
    for _ in range(2):
        (plain if kind == "plain" else features)()
    print(resident("VmHWM") - before)


def resident(what: str) -> int:
    """Memory of this process in bytes, as Linux tells it."""
    return int(re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def projecting(rounds: int) -> list[dict[str, Any]]:
    rows, projector = [], Sketch(4096)
    for examples in (1, 8):
        block = torch.randn(examples, 10**8)
        copy = torch.empty_like(block)

        def project(block: torch.Tensor = block) -> None:
            total = Accumulator(projector, len(block), 0, block.device, block.dtype)
            total.add("weight", block)
            total.result()

        seconds = interleaved({"project": project, "copy": partial(copy.copy_, block)}, rounds)
        work = f"projection of {examples} x 10⁸ numbers, k = 4096"
        rows.append(ratio(work, "÷ one copy of them", 2, seconds["project"], seconds["copy"]))
    return rows


def filled(directory: Path, rows: int, k: int, dtype: str = "float32") -> tuple[FeatureStore, Table]:
    config = StoreConfig(rows, k, {"kind": "sketch", "seed": 0}, dtype, {"weight": [k]}, {"name": "benchmark"})
    store = FeatureStore.create(directory, config)
    table, generator = store.add_checkpoint(0, "weights"), np.random.default_rng(0)
    for start in range(0, rows, 8192):
        indices = np.arange(start, min(start + 8192, rows))
        ones = np.ones(len(indices), np.float32)
        features = generator.standard_normal((len(indices), k), np.float32)
        table.write(indices, RowValues(features, ones, ones, ones, indices.astype(np.uint64)))
    return store, table


def with_targets(store: FeatureStore, targets: int) -> tuple[Experiment, np.ndarray]:
    """An experiment of random targets, named by their number, and their features."""
    experiment = store.add_experiment(str(targets), targets)
    numbers = np.random.default_rng(1).standard_normal((targets, store.config.proj_dim), np.float32)
    ones = np.ones(targets, np.float32)
    values = RowValues(numbers, ones, ones, ones, np.arange(targets, dtype=np.uint64))
    experiment.add_targets(0).write(np.arange(targets), values)
    return experiment, numbers


def scoring(rounds: int) -> list[dict[str, Any]]:
    rows, k = [], 2048
    with tempfile.TemporaryDirectory() as directory:
        _, table = filled(Path(directory) / "gram", 100_000, k)
        features = torch.from_numpy(table.features.read())
        seconds = interleaved(
            {"gram": lambda: gram(table, "identity"), "matmul": lambda: features.T @ features}, min(rounds, 3)
        )
        rows.append(ratio("Gram, n = 100,000", "÷ one matmul of that shape", 0.75, seconds["gram"], seconds["matmul"]))
        store, table = filled(Path(directory) / "top", 200_000, k)
        store.finalize(0, "identity", np.eye(k))
        for targets, goal in ((1, 1.3), (1000, 1.3)):
            experiment, numbers = with_targets(store, targets)
            scorer = Scorer(experiment, [0], ScoringConfig(Damping(), "identity"))
            what, other = single(table, numbers[0]) if targets == 1 else several(table, numbers)
            seconds = interleaved({"top": partial(scorer.top, 10), "other": other}, min(rounds, 5))
            work = f"top-10 of {targets} targets, n = 200,000, k = 2048"
            rows.append(ratio(work, what, goal, seconds["top"], seconds["other"]))
    return rows


def single(table: Table, target: np.ndarray) -> tuple[str, Callable[[], Any]]:
    chunks = [table.features.read_chunk(i) for i in range(table.features.chunks)]
    return "÷ numpy over the same mapped bytes", lambda: [chunk @ target for chunk in chunks]


def several(table: Table, targets: np.ndarray) -> tuple[str, Callable[[], Any]]:
    whole, columns = torch.from_numpy(table.features.read()), torch.from_numpy(targets.T.copy())
    return "÷ torch matmul in RAM", lambda: whole @ columns


def importing() -> list[dict[str, Any]]:
    code = "import time, torch, zarr; t = time.perf_counter(); import trak; print(time.perf_counter() - t)"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    row = {
        "work": "import trak",
        "figure": "seconds beyond torch and zarr",
        "median": statistics.median(times),
        "goal": 0.3,
    }
    show(row)
    return [row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds for each figure")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/bench.json"))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    machine = {
        "processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
        "trak": trak.__version__, "torch": torch.__version__, "numpy": np.__version__, "rounds": arguments.rounds,
    }  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print("| work | figure | median | lowest - highest | goal |\n| --- | --- | --- | --- | --- |")
    rows = [
        *importing(), *featurizing(arguments.rounds), *projecting(arguments.rounds), *scoring(arguments.rounds),
        *shown(growing()),
    ]  # fmt: skip
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
