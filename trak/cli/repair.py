"""trak repair: a damaged store, ready for its script to be run again."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from trak.cli.common import add_command
from trak.store import StoreError
from trak.store.repair import repair

_EXAMPLES = """\
  trak repair results            what is corrupt is marked as not done; then run your script again
  trak repair results --json
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "repair", "find what is corrupt in a store, and mark it as not done", _EXAMPLES, run)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(chosen: argparse.Namespace) -> str:
    """What is to be printed; raises a StoreError if a part of the store can't be repaired."""
    found = repair(chosen.store)
    repaired, lines = all(each.repaired for each in found), [*map(str, found)] or ["nothing is corrupt"]
    if found and repaired:
        lines.append("run the script that made the store again: it computes what is missing, and nothing else")
    words = json.dumps([asdict(each) for each in found], indent=2) if chosen.json else "\n".join(lines)
    if not repaired:
        raise StoreError(words)
    return words
