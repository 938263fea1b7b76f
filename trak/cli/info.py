"""python -m trak info: what a store holds."""

import argparse
import json
from typing import Any

from trak.cli.common import add_command
from trak.store.summary import describe, summarize

_EXAMPLES = """\
  python -m trak info results
  python -m trak info s3://bucket/results --json
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "info", "what a feature store holds", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> str:
    """What is to be printed."""
    found = describe(chosen.store)
    return json.dumps(found, indent=2) if chosen.json else summarize(found)
