"""trak info: what a store holds."""

import argparse
import json
import sys
from typing import Any

from trak.cli.common import add_command
from trak.store.summary import as_array, describe, missing, summarize

_EXAMPLES = """\
  trak info results
  trak info s3://bucket/results --json
  trak info results --missing --per-task 10000   which tasks of a job array are to be submitted again?
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "info", "what a feature store holds", _EXAMPLES, run)
    parser.add_argument("--json", action="store_true", help="print JSON; with --missing: ranges [start, stop)")
    parser.add_argument("--missing", action="store_true", help="print only which training examples are not featurized")
    tasks = "with --missing: print the numbers of the tasks, of so many rows each"
    parser.add_argument("--per-task", type=int, metavar="ROWS", help=tasks)
    expected = "with --missing: how many there should be, model_ids 0 to N - 1"
    parser.add_argument("--checkpoints", type=int, metavar="N", help=expected)


def run(chosen: argparse.Namespace) -> str:
    """What is to be printed."""
    if chosen.missing:
        ranges = missing(chosen.store, chosen.checkpoints, 1 if chosen.per_task is None else chosen.per_task)
        if not ranges:
            print("trak: nothing is missing", file=sys.stderr)
        return json.dumps(ranges) if chosen.json else as_array(ranges)
    found = describe(chosen.store)
    return json.dumps(found, indent=2) if chosen.json else summarize(found)
