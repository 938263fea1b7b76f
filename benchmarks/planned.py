"""What `trak plan` predicts, against runs of big_store.py: python benchmarks/planned.py --examples 1e3 1e4

The constants are those of benchmarks/constants.py, measured at other sizes. Small runs are repeated, and the quickest
counts: five times up to 10⁴ examples, three times up to 10⁶. Results are added to those in `--output`, and all are
printed; 10³ to 10⁶ take three minutes, 10⁷ takes six, and 11 GB on disk. Nothing else may run.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from big_store import add_sizes, measured

from trak.distributed.planning import Constants, Workload
from trak.distributed.planning.phases import featurizing, finalizing, query

WITHIN = 0.25


def predicted(constants: Constants, step_seconds: float, memory: float, **sizes: Any) -> dict[str, float]:
    """Figures of a run of big_store.py by their names."""
    # Of the example's bytes nothing is left to say: constants.py measured rows with the same examples.
    work = Workload(**sizes, params=170, step_seconds=step_seconds, example_bytes=1, memory=memory)
    made, final, open_, anew = (
        featurizing(work, constants), finalizing(work, constants), query(work, constants),
        query(work, constants, opened=True),
    )  # fmt: skip
    return {
        "featurizing, s": made.seconds, "finalizing, s": final.seconds, "query, store open, s": open_.seconds,
        "query, opened anew, s": anew.seconds,
        "stored, bytes": work.stored_bytes, "read by a query, bytes": anew.bytes_read,
        "memory of featurizing, bytes": made.memory, "memory of finalizing, bytes": final.memory,
        "memory of a query, bytes": anew.memory,
    }  # fmt: skip


def found(run: dict[str, Any]) -> dict[str, float]:
    """The same figures of a run."""
    seconds = {name: phase["seconds"] for name, phase in run["phases"].items()}
    held = {name: phase["anonymous"] for name, phase in run["phases"].items()}
    return {
        "featurizing, s": seconds["opening"] + seconds["featurizing"], "finalizing, s": seconds["finalizing"],
        "query, store open, s": seconds["targets"] + seconds["query"],
        "query, opened anew, s": seconds["targets"] + seconds["reopened"],
        "stored, bytes": run["bytes"], "read by a query, bytes": run["bytes_read"],
        "memory of featurizing, bytes": held["featurizing"], "memory of finalizing, bytes": held["finalizing"],
        "memory of a query, bytes": held["reopened"],
    }  # fmt: skip


def compared(examples: int, constants: Constants, chosen: argparse.Namespace, step_seconds: float) -> dict[str, Any]:
    sizes = {name: getattr(chosen, name) for name in ("k", "dtype", "targets", "batch")}
    rounds = 5 if examples <= 10**4 else 3 if examples <= 10**6 else 1
    runs = [found(measured(chosen.directory, chosen.limit, examples=examples, **sizes)) for _ in range(rounds)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    expected = predicted(constants, step_seconds, memory, examples=examples, **sizes)
    return {name: {"predicted": value, "measured": min(run[name] for run in runs)} for name, value in expected.items()}


def step() -> float:
    """Seconds of making one of big_store.py's examples and of a plain step on it, alone on one thread."""
    code = "from constants import making_and_training; print(making_and_training(4096))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    where = Path(__file__).parent
    return float(subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=where))


def table(results: dict[str, Any]) -> str:
    """Every run there is: predicted / measured, and their ratio, marked where it is off by more than a quarter."""
    sizes = sorted(results, key=int)
    lines = [f"| predicted / measured (ratio) | {' | '.join(f'{int(size):,}' for size in sizes)} |"]
    lines.append("| --- " * (len(sizes) + 1) + "|")
    for name in results[sizes[0]]:
        cells = []
        for size in sizes:
            expected, was = results[size][name]["predicted"], results[size][name]["measured"]
            ratio = expected / was
            mark = "**" if abs(ratio - 1) > WITHIN else ""
            cells.append(f"{expected:.3g} / {was:.3g} ({mark}{ratio:.2f}{mark})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=float, nargs="+", default=[1e3, 1e4, 1e5, 1e6], help="sizes of the runs")
    parser.add_argument("--constants", type=Path, default=Path("benchmarks/output/constants.json"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/output/planned.json"))
    add_sizes(parser)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # as the constants were measured
    constants, step_seconds = Constants.load(chosen.constants), step()
    results = json.loads(chosen.output.read_text()) if chosen.output.exists() else {}
    for examples in map(int, chosen.examples):
        results[str(examples)] = compared(examples, constants, chosen, step_seconds)
        chosen.output.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
