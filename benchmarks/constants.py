"""Measures what `trak plan` estimates with, on this machine: python benchmarks/constants.py

One worker of one thread, as `trak.distributed.planning.Constants` describes each figure. Sizes differ from those that
benchmarks/planned.py compares predictions with. Takes two minutes and 2 GB on disk; nothing else may run.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from big_store import Made, classifier, drop_from_cache
from models import plain_step
from run import filled, interleaved, steps, with_targets
from scipy.optimize import nnls

import trak
from trak.distributed.planning import Constants, Line
from trak.distributed.planning.constants import DTYPES
from trak.distributed.planning.phases import gram_operations
from trak.inputs import batches
from trak.projectors import Sketch
from trak.scoring import Damping, Scorer, ScoringConfig, TopKQuery, gram
from trak.scoring.auto_damping import SAMPLED_ROWS, choose
from trak.scoring.damping import factorize
from trak.store import FeatureStore
from trak.store.table import row_bytes
from trak.tasks import make_task

ROUNDS = 5
ROWS, WIDTHS, TARGETS = 50_000, (256, 1024), (16, 256)
BATCHES = (512, 4096)
GIGABYTE = 2**30


def seconds(function: Callable[[], Any], rounds: int = ROUNDS, warm: bool = True) -> float:
    if warm:
        function()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def solved(rows: list[list[Any]], measured: list[float]) -> list[float]:
    """What the unknowns of linear equations are, none of them negative, by least squares of relative errors."""
    scale = np.array(measured)
    found, _ = nnls(np.array(rows) / scale[:, None], np.ones(len(scale)))
    return [float(value) for value in found]


def line(sizes: list[float], measured: list[float]) -> Line:
    return Line(*solved([[1, size] for size in sizes], measured))


def making_and_training(batch: int) -> float:
    """Seconds that making one example of big_store.py and a plain step on it take."""
    model, task = classifier(), make_task("image_classification")

    def work() -> None:
        for made in Made(4 * batch, batch):
            plain_step(model, task, made)

    return seconds(work) / (4 * batch)


def featurized(directory: Path, rows: int, k: int, dtype: str, batch: int) -> float:
    model = classifier()

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=directory) as made:
            start = time.perf_counter()
            traker = trak.TRAKer(model, "image_classification", rows, made, proj_dim=k, dtype=dtype)
            traker.load_checkpoint(model.state_dict(), 0)
            with traker.overlapped():
                for some in Made(rows, batch):
                    traker.featurize(some)
            taken.append(time.perf_counter() - start)

    taken: list[float] = []
    for _ in range(3):
        work()
    return min(taken)


def featurizing(directory: Path, ratio: float) -> dict[str, Any]:
    few = 10
    opening = featurized(directory, few, WIDTHS[0], "float16", few)
    step = ratio * making_and_training(BATCHES[1])
    found = {
        (dtype, k, batch): (featurized(directory, ROWS, k, dtype, batch) - opening) / ROWS - step
        for dtype in DTYPES for k in WIDTHS for batch in (BATCHES if dtype == "float16" else BATCHES[1:])
    }  # fmt: skip
    equations = [[1, 1 / batch, *(k * (dtype == one) for one in DTYPES)] for dtype, k, batch in found]
    row, batch, *each = solved(equations, [max(1e-9, value) for value in found.values()])
    rows = {dtype: Line(row, one) for dtype, one in zip(DTYPES, each, strict=True)}
    return {"open_seconds": opening, "batch_seconds": batch, "row_seconds": rows}


def queried(store: FeatureStore, targets: int) -> float:
    experiment, _ = with_targets(store, targets)
    scorer = Scorer(experiment, [0], ScoringConfig(Damping(), "identity"))
    return seconds(lambda: scorer.top(TopKQuery(10)), 3)


def choosing(directory: Path, rows: int, k: int) -> float:
    """Seconds of choosing the damping."""
    with tempfile.TemporaryDirectory(dir=directory) as made:
        store, _ = filled(Path(made), rows, k)
        store.finalize(0, "identity", np.eye(k))
        experiment, _ = with_targets(store, TARGETS[-1])
        return seconds(lambda: choose(experiment, [0], "identity"), 3)


def stored(directory: Path) -> dict[str, Any]:
    """Of checksums, Gram matrices and products."""
    verified, grams, products = {}, {}, {}
    for dtype in DTYPES:
        for k in WIDTHS:
            with tempfile.TemporaryDirectory(dir=directory) as made:
                store, table = filled(Path(made), ROWS, k, dtype)
                store.finalize(0, "identity", np.eye(k))
                verified[row_bytes(k, dtype)] = seconds(table.verify, 3) / ROWS
                grams[dtype, k] = seconds(lambda table=table: gram(table, "ggn"), 3) / ROWS  # type: ignore[misc]
                for targets in TARGETS:
                    products[dtype, k, targets] = queried(store, targets) / ROWS
    equations = [[*(k * (dtype == one) for one in DTYPES), gram_operations(k)] for dtype, k in grams]
    *conversions, slow = solved(equations, [*grams.values()])
    equations = [[*(k * (dtype == one) for one in DTYPES), 2 * k * m, 1, m] for dtype, k, m in products]
    *streams, product, fixed, target = solved(equations, [*products.values()])
    chosen = {(k, rows): choosing(directory, rows, k) for k in WIDTHS for rows in (SAMPLED_ROWS // 8, SAMPLED_ROWS)}
    equations = [[1, k**3, rows, rows * k**2] for k, rows in chosen]
    fixed_choice, cubed, row, squared = solved(equations, [*chosen.values()])
    return {
        "eigen_seconds": Line(fixed_choice, cubed), "damping_seconds": Line(row, squared),
        "verify_seconds": line([*verified], [*verified.values()]),
        "gram_seconds": dict(zip(DTYPES, conversions, strict=True)), "gram_flops": 1 / slow,
        "stream_seconds": dict(zip(DTYPES, streams, strict=True)), "product_flops": 1 / product,
        "top_seconds": Line(fixed, target),
    }  # fmt: skip


def fixed(directory: Path) -> dict[str, float]:
    """What finalizing and a query take when there is next to nothing to do."""
    model, few = classifier(), 10
    final, asked, reopened = [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=directory) as made:
            traker = trak.TRAKer(model, "image_classification", few, made, proj_dim=WIDTHS[0], dtype="float16")
            traker.load_checkpoint(model.state_dict(), 0)
            for some in Made(few, few):
                traker.featurize(some)
            start = time.perf_counter()
            traker.finalize_features()
            final.append(time.perf_counter() - start)
            traker.start_scoring_checkpoint("targets", model.state_dict(), 0, few)
            for some in Made(few, few, seed=1):
                traker.score(some)
            attribution = traker.attribution("targets")
            start = time.perf_counter()
            attribution.top(few)
            asked.append(time.perf_counter() - start)
            del traker, attribution
            drop_from_cache([path for path in Path(made).rglob("*") if path.is_file()])
            start = time.perf_counter()
            trak.Attribution.open(made).top(few)
            reopened.append(time.perf_counter() - start)
    query, anew = min(asked), min(reopened)
    return {
        "finalize_seconds": min(final), "query_seconds": query, "reopen_seconds": max(0.0, anew - query),
    }  # fmt: skip


def solving() -> dict[str, float]:
    k, targets = 2048, 256
    rows = torch.randn(2 * k, k, dtype=torch.float64)
    matrix, columns = rows.T @ rows, torch.randn(k, targets, dtype=torch.float64)
    factor = factorize(matrix, Damping())
    return {
        "cholesky_flops": k**3 / 3 / seconds(lambda: factorize(matrix, Damping()), 3),
        "solve_flops": 2 * k**2 * targets / seconds(lambda: torch.cholesky_solve(columns, factor), 3),
    }


def writing_scores(directory: Path) -> float:
    """Seconds of each score's way into a file, beyond its product."""
    targets, k = 512, WIDTHS[0]
    with tempfile.TemporaryDirectory(dir=directory) as made:
        store, _ = filled(Path(made), ROWS, k)
        store.finalize(0, "identity", np.eye(k))
        experiment, _ = with_targets(store, targets)
        scorer, scores = (
            Scorer(experiment, [0], ScoringConfig(Damping(), "identity")),
            np.empty((ROWS, targets), np.float32),
        )
        plain = seconds(lambda: scorer.fill(scores), 3)
        taken = []
        for number in range(3):
            start = time.perf_counter()
            experiment.scores({"number": number}, scorer.pieces)
            taken.append(time.perf_counter() - start)
    return max(0.0, min(taken) - plain) / (ROWS * targets)


def storage(directory: Path) -> dict[str, float]:
    piece = np.random.default_rng(0).integers(0, 256, 64 * 2**20, np.uint8)
    with tempfile.TemporaryDirectory(dir=directory) as made:
        files = [Path(made, str(number)) for number in range(GIGABYTE // len(piece))]
        start = time.perf_counter()
        for file in files:
            with open(file, "wb") as handle:
                handle.write(piece.data)
                os.fdatasync(handle.fileno())
        written = time.perf_counter() - start
        drop_from_cache(files)
        start = time.perf_counter()
        for file in files:
            np.memmap(file, np.uint8, mode="c")[::4096].sum()
        read = time.perf_counter() - start
    return {"read_bandwidth": GIGABYTE / read, "write_bandwidth": GIGABYTE / written}


def hashing() -> float:
    images = torch.randn(256, 3, 64, 64)
    return seconds(lambda: batches.digests((images,))) / (images.numel() * images.itemsize)


def idle() -> float:
    code = "import re, trak; print(re.search(r'RssAnon:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return 1024 * float(subprocess.check_output([sys.executable, "-c", code], env=environment))


def ratio() -> float:
    """Featurizing ÷ a plain step: the geometric mean of an image model's and a text model's."""
    found = []
    for name in ("resnet9", "bert"):
        plain, features = steps(name, Sketch(2048))
        timed = interleaved({"plain": plain, "features": features}, ROUNDS)
        found.append(statistics.median(a / b for a, b in zip(timed["features"], timed["plain"], strict=True)))
    return statistics.geometric_mean(found)


def machine() -> str:
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = named[0].split(":")[1].strip() if named else platform.machine()
    return f"one thread of {os.cpu_count()} cores, {name}, torch {torch.__version__}"


def measure(directory: Path | None) -> Constants:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=directory, prefix="trak-constants-") as made:
        where, slower = Path(made), ratio()
        return Constants(
            machine=machine(), step_ratio=slower, hash_seconds=hashing(), process_bytes=idle(),
            score_seconds=writing_scores(where), **featurizing(where, slower), **stored(where), **fixed(where),
            **solving(), **storage(where),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where stores are made (default: the temporary directory)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/constants.json"))
    chosen = parser.parse_args()
    found = measure(chosen.directory)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    found.save(chosen.output)
    print(chosen.output.read_text(), end="")


if __name__ == "__main__":
    main()
