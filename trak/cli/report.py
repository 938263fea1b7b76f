"""python -m trak report: a page for a browser."""

import argparse
import json
from pathlib import Path
from typing import Any

from trak.cli.common import add_choice, add_command, attribution

_EXAMPLES = """\
  python -m trak report results --output report.html
  python -m trak report results --output report.html --labels labels.json

labels.json holds any of these lists, one entry for each example, and the names of labels that are numbers:
  {"train": [3, 0, …], "targets": [7, …], "predicted": [1, …], "names": ["airplane", …]}

Examples themselves are shown by attribution.report("report.html", train_dataset, target_dataset) in Python.
"""
_OPTIONS = {
    "train": "train_labels",
    "targets": "target_labels",
    "predicted": "predicted_labels",
    "names": "label_names",
}


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "report", "write a page of indices, scores and labels for a browser", _EXAMPLES)
    parser.add_argument("--output", "-o", type=Path, default=Path("report.html"), help="file (default: report.html)")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="JSON with labels, see below")
    parser.add_argument("--title", default="Attribution report", help="heading of the page")
    parser.add_argument("--json", action="store_true", help="print JSON: {path, bytes}")
    add_choice(parser, " at either end of a target's ranking (default: 10)")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> str:
    """What is to be printed."""
    labels = {} if chosen.labels is None else _labels(chosen.labels)
    path = attribution(chosen).report(chosen.output, targets=chosen.targets, k=chosen.k, title=chosen.title, **labels)
    size = path.stat().st_size
    return json.dumps({"path": str(path), "bytes": size}) if chosen.json else f"wrote {path} ({size:,} bytes)"


def _labels(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f'{path} is no JSON: {error}; write a JSON object, such as {{"train_labels": [...]}}'
        ) from error
    wanted = ", ".join(_OPTIONS)
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} must hold an object with any of {wanted}, got a {type(found).__name__}; write such an object"
        )
    for name, values in found.items():
        if name not in _OPTIONS:
            raise ValueError(f"{path} has {name!r}; expected any of {wanted}; rename or remove it")
        if not isinstance(values, list):
            raise ValueError(
                f"{name} in {path} must be a list, got a {type(values).__name__}; write [...] with one for each example"
            )
    return {_OPTIONS[name]: values for name, values in found.items()}
