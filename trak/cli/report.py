"""trak report: a page for a browser."""

import argparse
import json
from pathlib import Path
from typing import Any

from trak.cli.common import LABELS, add_choice, add_command, attribution, labels

_EXAMPLES = f"""\
  trak report results --output report.html
  trak report results --output report.html --labels labels.json

{LABELS}
Examples themselves are shown by attribution.report("report.html", train_dataset, target_dataset) in Python.
"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "report", "write a page of indices, scores and labels for a browser", _EXAMPLES, run)
    parser.add_argument("--output", "-o", type=Path, default=Path("report.html"), help="file (default: report.html)")
    parser.add_argument("--title", default="Attribution report", help="heading of the page")
    parser.add_argument("--json", action="store_true", help="print JSON: {path, bytes}")
    add_choice(parser, " at either end of a target's ranking (default: 10)")


def run(chosen: argparse.Namespace) -> str:
    """What is to be printed."""
    options = {"targets": chosen.targets, "k": chosen.k, "title": chosen.title, **labels(chosen)}
    path = attribution(chosen).report(chosen.output, **options)
    size = path.stat().st_size
    return json.dumps({"path": str(path), "bytes": size}) if chosen.json else f"wrote {path} ({size:,} bytes)"
