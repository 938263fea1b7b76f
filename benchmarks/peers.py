"""Times the same attribution work done by this library and by published packages: `python benchmarks/peers.py`.

Every package gets the same trained model, data, number of threads and number of features, and has to give
the scores of n training examples for m targets, from a checkpoint on disk to an array, each time in a
process and a virtual environment of its own. traker and dattri compute what this library computes (TRAK
with W = I and the same λ), through dense Gaussian projections where it uses a sketch: they draw the whole
projection again for every batch, so they get batches of 128. The others compute something else for the same
question, at their defaults: captum the inner products of two losses' gradients, unprojected, by
convolutional and linear layers (TracInCP) or by the last layer (TracInCPFast); kronfluence influence
functions with EK-FAC; bergson inner products of projected gradients by the linear layers of sequence
models. Their times say what an answer costs and not which answer is better; the correlation with exact,
unprojected scores of the same kind tells whether a package computes what it says. Not compared: CUDA,
several checkpoints, dattri's cheaper projection (random_mask, which keeps k coordinates) and its other
attributors, and transformers with their attention masks taken out, which vmap could run. Installing is not timed.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peer_runners.environments import install
from peer_runners.exact import Exact, correlation
from peer_runners.prepare import prepare
from peer_runners.rounds import HERE, Job, Method, run_all
from peer_runners.work import Work

ALL = 10_000
PLAIN = Method("plain", "forward + backward of the same examples", slow=False)
OURS = Method("trak", "this library: TRAKer", "TRAK", slow=False)
PEERS = [
    Method("traker", "traker: TRAKer, BasicProjector", "TRAK", ("traker==0.3.2",)),
    Method("dattri", "dattri: TRAKAttributor, normal projection", "TRAK", ("dattri",)),
    Method("captum", "captum: TracInCP, conv and linear layers", "gradient product", ("captum",)),
    Method("captum_fast", "captum: TracInCPFast, last layer", "gradient product", ("captum",), slow=False),
    Method("kronfluence", "kronfluence: EK-FAC", "influence", ("kronfluence",)),
    Method("bergson", "bergson: InMemoryCollector", "gradient product", ("bergson",)),
]
COLUMNS = (
    "model", "what", "version", "n", "seconds", "lowest - highest (rounds)", "ms an example", "÷ this library",
    "÷ forward + backward", "10,000 examples", "quantity", "correlation with exact; with this library", "GiB",
)  # fmt: skip


def make_jobs(options: argparse.Namespace, methods: list[Method]) -> tuple[list[Job], dict[str, Exact], str]:
    """A job for each model, number of examples and method; this library and plain training at every number."""
    jobs, exacts, sources = [], {}, []
    few = min(options.slow_examples, options.examples)
    for model in options.models:
        directory = options.cache.resolve() / "work" / model
        sources.append(prepare(model, directory, options.images, options.examples, options.targets, options.threads))
        work = Work(model, str(directory), options.examples, options.k, options.threads)
        torch.set_num_threads(options.threads)
        exacts[model] = exact = Exact(work)
        for n in sorted({few, options.examples}):
            sized = replace(work, examples=n, penalty=exact.penalty(n, options.k))
            at_n = [m for m in methods if n == (few if m.slow else options.examples)]
            jobs += [Job(method, sized) for method in (PLAIN, OURS, *at_n)]
    return jobs, exacts, "; ".join(dict.fromkeys(sources))


def make_row(job: Job, jobs: list[Job], exact: Exact) -> dict[str, Any]:
    work, quantity = job.work, job.method.quantity
    row: dict[str, Any] = {
        "model": work.model, "what": job.method.what, "examples": work.examples, "quantity": quantity
    }  # fmt: skip
    if not job.results:
        return row | {"error": job.error or "not run"}
    seconds, last = job.seconds(), list(job.results.values())[-1]
    row |= {name: last[name] for name in ("version", "torch", "peak_gib")} | {
        "seconds": statistics.median(seconds.values()), "lowest": min(seconds.values()),
        "highest": max(seconds.values()), "rounds": len(seconds), "extrapolated": work.examples != ALL,
        "seconds_all": statistics.median(job.seconds_for(ALL).values()),
        "stages": [result["stages"] for result in job.results.values()],
    }  # fmt: skip
    beside = {other.method.runner: other for other in jobs if other.work == work}
    for name, other in (("ratio_ours", beside["trak"]), ("ratio_plain", beside["plain"])):
        theirs = other.seconds()
        if ratios := [seconds[i] / theirs[i] for i in seconds if i in theirs]:
            row[name] = statistics.median(ratios)
    scores, ours = job.scores(), beside["trak"].scores()
    truth = exact.scores(quantity, work.examples, work.penalty)
    if scores is not None and truth is not None:
        row["correlation_exact"] = correlation(scores, truth)
    if scores is not None and ours is not None:
        row["correlation_ours"] = correlation(scores, ours)
    return row | ({"error": job.error} if job.error else {})


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def line(row: dict[str, Any]) -> str:
    """A row in Markdown."""
    if "seconds" not in row:
        cells = [row["model"], row["what"], "", row["examples"], f"failed: {row['error']}", *[""] * 5, row["quantity"]]
        return "| " + " | ".join(str(cell).replace("|", "/") for cell in [*cells, "", ""]) + " |"
    ratios = [f"{row[name]:.2f}" if name in row else "" for name in ("ratio_ours", "ratio_plain")]
    agreement = [f"{row[name]:.3f}" if name in row else "-" for name in ("correlation_exact", "correlation_ours")]
    spread = f"{row['lowest']:.1f} - {row['highest']:.1f} ({row['rounds']})"
    everything = ("extrapolated: " if row["extrapolated"] else "") + duration(row["seconds_all"])
    cells = [
        row["model"], row["what"], row["version"], row["examples"], f"{row['seconds']:.1f}", spread,
        f"{1000 * row['seconds'] / row['examples']:.1f}", *ratios, everything, row["quantity"],
        "; ".join(agreement) if row["quantity"] else "", f"{row['peak_gib']:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def processor() -> str:
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["resnet9", "bert"], default=["resnet9", "bert"])
    parser.add_argument("--peers", nargs="*", choices=[m.runner for m in PEERS], default=[m.runner for m in PEERS])
    parser.add_argument("--examples", type=int, default=512, help="training examples n")
    parser.add_argument("--slow-examples", type=int, default=128, help="n for the packages that take long")
    parser.add_argument("--targets", type=int, default=32, help="targets m")
    parser.add_argument("--k", type=int, default=2048, help="features")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds at most")
    parser.add_argument("--budget", type=float, default=360, help="seconds, after which no run is repeated")
    parser.add_argument("--timeout", type=float, default=300, help="seconds, after which a run is given up")
    parser.add_argument("--full", action="store_true", help="all 10,000 examples, once, however long it takes")
    parser.add_argument("--images", type=Path, help="folder of CIFAR-10: data_batch_*.bin or cifar10_jpeg.npz")
    parser.add_argument("--cache", type=Path, default=HERE / "output" / "peers", help="for virtual environments")
    parser.add_argument("--output", type=Path, default=HERE / "output" / "peers.json")
    options = parser.parse_args()
    if options.full:
        options.examples, options.slow_examples, options.rounds, options.timeout = ALL, ALL, 1, None
    return options


def main() -> None:
    options = parse()
    methods = [method for method in PEERS if method.runner in options.peers]
    environments, pythons, broken = options.cache.resolve() / "environments", {}, {}
    for method in methods:
        requirements = ["torch", "transformers", *method.requirements]
        try:
            pythons[method.environment] = install(environments, method.environment, requirements)
        except Exception as error:
            broken[method.environment] = f"{type(error).__name__}: {error}".splitlines()[0]
    jobs, exacts, source = make_jobs(options, methods)
    for job in jobs:
        job.error = broken.get(job.method.environment, "")
    with suppress(KeyboardInterrupt):  # what was measured is told
        run_all(jobs, pythons, options.rounds, options.budget, options.timeout)
    rows = [make_row(job, jobs, exacts[job.work.model]) for job in jobs]
    machine = {
        "processor": processor(), "cores": os.cpu_count(), "threads": options.threads, "system": platform.platform(),
        "python": platform.python_version(), "torch": torch.__version__,
        "trak": importlib.metadata.version("trak-attribution"),
    }  # fmt: skip
    sizes = {"targets": options.targets, "k": options.k, "data": source, "rounds": options.rounds}
    print("\n" + ", ".join(f"{name} {value}" for name, value in (machine | sizes).items()) + "\n")
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    print("\n".join(line(row) for row in rows))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine, "sizes": sizes, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
