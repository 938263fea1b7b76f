"""trak plan: what an attribution will cost, and what breaks first."""

import argparse
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trak.cli.common import add_command
from trak.distributed.planning import Constants, Cost, Limit, Workload, limits, phases
from trak.distributed.planning.constants import DTYPES
from trak.distributed.planning.workload import step_seconds
from trak.store import open_store

_EXAMPLES = """\
  trak plan --examples 1.3e6 --params 25.6e6 --k 4096 --step-seconds 0.002 --example-bytes 602112
  trak plan --examples 1e9 --params 7e9 --k 4096 --dtype float16 --tokens 1000 --workers 512 \
      --flops 4e14 --matmul-flops 3e13 --float64-flops 2e13 --read-bandwidth 1e11 --write-bandwidth 1e11
  trak plan results --workers 8                what a store knows need not be said
  trak plan --examples 1e6 --params 1e6 --constants benchmarks/output/constants.json --json

--step-seconds is what you measured for one example, forward and backward, on one worker; without it, 6 operations for
each parameter and token are assumed (--tokens, --flops). docs/scaling.md has the formulas. Models are taken to be
covered by the layers engine; parameters that are differentiated one example at a time (a warning says so) cost more.
"""
_SHOWN = 5


def add(commands: Any) -> None:
    """Add the command."""
    known = "a store that has examples, params, k, dtype and checkpoints, where no option says else"
    what, store = "what an attribution will cost, and what breaks first", {"nargs": "?", "help": known}
    parser = add_command(commands, "plan", what, _EXAMPLES, run, store)
    parser.description = "What an attribution will cost in seconds, GPU-hours, bytes and memory, and what breaks first."
    number = float  # 1e9 is easier to write
    parser.add_argument("--examples", type=number, help="training examples")
    parser.add_argument("--params", type=number, help="parameters that are differentiated by")
    parser.add_argument("--k", type=number, help="features of an example: proj_dim (default: 2048)")
    parser.add_argument("--dtype", choices=DTYPES, help="of stored features (default: float32)")
    parser.add_argument("--checkpoints", type=number, help="(default: 1)")
    parser.add_argument("--targets", type=number, default=100, help="of one query (default: 100)")
    parser.add_argument("--workers", type=number, default=1, help="processes, each with its device (default: 1)")
    parser.add_argument("--batch", type=number, default=64, help="examples of a batch (default: 64)")
    parser.add_argument("--step-seconds", type=number, help="of a plain forward and backward pass of one example")
    parser.add_argument("--tokens", type=number, default=1, help="of an example, for FLOPs (default: 1)")
    sustained = "operations in a second that a worker's device sustains in training"
    parser.add_argument("--flops", type=number, help=sustained)
    parser.add_argument("--matmul-flops", type=number, help="the same in float32 products, for rows and Gram matrices")
    parser.add_argument("--float64-flops", type=number, help="the same in float64, for factors and solves")
    parser.add_argument("--example-bytes", type=number, help="of an example's tensors (default: 24 for each token)")
    parser.add_argument("--memory", type=number, default=64e9, help="bytes of a worker (default: 64e9)")
    parser.add_argument("--read-bandwidth", type=number, help="bytes in a second from storage, all workers together")
    parser.add_argument("--write-bandwidth", type=number, help="the same to storage")
    parser.add_argument("--constants", type=Path, help="JSON that benchmarks/constants.py wrote on your machine")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(chosen: argparse.Namespace) -> str:
    """What is to be printed."""
    _fill_in(chosen)
    constants = _constants(chosen)
    work = _work(chosen, constants)
    costs = phases(work, constants)
    found = limits(work, costs)
    if chosen.json:
        shown = {
            "work": asdict(work),
            "constants": constants.machine,
            "phases": [asdict(c) | {"seconds": c.seconds, "worker_hours": c.worker_hours} for c in costs],
            "limits": [asdict(limit) | {"margin": min(limit.margin, 1e300)} for limit in found],
        }
        try:
            return json.dumps(shown, indent=2, allow_nan=False)
        except ValueError as error:
            raise ValueError(
                f"{work.examples:.3g} examples and {work.params:.3g} params cost more than numbers can tell; give less"
            ) from error
    return summarize(work, constants, costs, found, guessed=chosen.step_seconds is None)


def _fill_in(chosen: argparse.Namespace) -> None:
    """What no option says: as the store has it, or the default."""
    known: dict[str, Any] = {"k": 2048, "dtype": "float32", "checkpoints": 1}
    if chosen.store is not None:
        store = open_store(chosen.store)
        known = {
            "examples": store.config.train_set_size,
            "params": sum(math.prod(shape) for shape in store.config.parameters.values()),
            "k": store.config.proj_dim,
            "dtype": store.config.dtype,
            "checkpoints": max(1, len(store.checkpoints())),
        }
    for option in ("examples", "params", "k", "dtype", "checkpoints"):
        if getattr(chosen, option) is None:
            if option not in known:
                raise ValueError(
                    f"--{option} is missing, got no store that knows it; give --examples and --params, or name a store"
                )
            setattr(chosen, option, known[option])


def _constants(chosen: argparse.Namespace) -> Constants:
    found = Constants.default() if chosen.constants is None else Constants.load(chosen.constants)
    for option in ("flops", "matmul_flops", "float64_flops"):
        value = getattr(chosen, option)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(
                f"--{option.replace('_', '-')} must be more than 0 and finite, got {value:g}; give what the device "
                "does in a second"
            )
    if chosen.matmul_flops is not None:
        free = dict.fromkeys(DTYPES, 0.0)  # a device converts rows as fast as it gets them
        flops = chosen.matmul_flops
        found = replace(found, gram_flops=flops, product_flops=flops, gram_seconds=free, stream_seconds=free)
    if chosen.float64_flops is not None:
        found = replace(found, cholesky_flops=chosen.float64_flops, solve_flops=chosen.float64_flops)
    return found


def _work(chosen: argparse.Namespace, constants: Constants) -> Workload:
    step = chosen.step_seconds
    if step is not None and chosen.flops is not None:
        raise ValueError(f"give --step-seconds (got {step:g}) or --flops (got {chosen.flops:g}), not both")
    if step is None:
        flops = constants.product_flops if chosen.flops is None else chosen.flops
        step = step_seconds(chosen.params, chosen.tokens, flops)
    example_bytes = 24 * chosen.tokens if chosen.example_bytes is None else chosen.example_bytes
    names = ("examples", "params", "k", "dtype", "checkpoints", "targets", "workers", "batch", "memory")
    given = {name: getattr(chosen, name) for name in (*names, "read_bandwidth", "write_bandwidth")}
    return Workload(**given, step_seconds=step, example_bytes=example_bytes)


def summarize(work: Workload, constants: Constants, costs: list[Cost], found: list[Limit], guessed: bool) -> str:
    """In words; `guessed` is whether nobody said how long a training step takes."""
    rows = [("", "seconds", "GPU-hours", "bytes read", "written", "memory", "most of it")]
    for cost in costs:
        parts = dict(cost.parts, storage=cost.storage_seconds)
        seconds = f"{cost.seconds:.3g} ({duration(cost.seconds)})"
        sizes = (size(cost.bytes_read), size(cost.bytes_written), size(cost.memory))
        rows.append((cost.name, seconds, f"{cost.worker_hours:.3g}", *sizes, max(parts, key=parts.__getitem__)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    guess = " (a guess by the number of parameters: measure it, give --step-seconds)" * guessed
    given = f"{guess}; constants of {constants.machine}; for models that the layers engine covers"
    step = f"{work.step_seconds:.3g} s a training step of one example{given}"
    lines += ["", f"{size(work.stored_bytes)} stored, {work.row_bytes:,} bytes a row; {step}", "", "what breaks first:"]
    for limit in found[:_SHOWN]:
        verdict = f"{limit.margin:.3g} times more is too much" if limit.margin >= 1 else "TOO MUCH"
        ends = (limit.value, limit.bound)
        value, bound = (size(end) if limit.unit == "bytes" else f"{end:.3g} {limit.unit}" for end in ends)
        lines += [f"  {limit.what}: {value} of {bound}, {verdict}", f"    what helps: {limit.advice}"]
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"
