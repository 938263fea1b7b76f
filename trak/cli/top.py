"""python -m trak top: the training examples with the highest or lowest scores."""

import argparse
import json
from typing import Any

from trak.cli.common import add_choice, add_command, attribution
from trak.looking import check_targets

_EXAMPLES = """\
  python -m trak top results
  python -m trak top results --targets 0 1 -k 10
  python -m trak top results --bottom --json > harmful.json
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "top", "the training examples that pushed targets' outputs up most", _EXAMPLES)
    add_choice(parser, " for each target (default: 10)")
    parser.add_argument("--bottom", action="store_true", help="those that pushed them down most")
    parser.add_argument("--json", action="store_true", help="print JSON: a list of {target, indices, scores}")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> str:
    """What is to be printed."""
    result = attribution(chosen)
    count = result.shape[1]
    targets = check_targets(range(count) if chosen.targets is None else chosen.targets, count)
    found = result.top(chosen.k, chosen.bottom)
    if chosen.json:
        rows = [
            {"target": t, "indices": found.indices[t].tolist(), "scores": [float(str(s)) for s in found.scores[t]]}
            for t in targets
        ]
        return json.dumps(rows, indent=2)
    lines = [f"{'target':>8}  {'rank':>4}  {'train_index':>11}  score"]
    for t in targets:
        for rank, (index, score) in enumerate(zip(found.indices[t], found.scores[t], strict=True), 1):
            lines.append(f"{t:>8}  {rank:>4}  {index:>11}  {score:+.4g}")
    return "\n".join(lines)
