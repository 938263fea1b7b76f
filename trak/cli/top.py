"""trak top: the training examples with the highest or lowest scores."""

import argparse
import json
from typing import Any

from trak.cli.common import LABELS, add_choice, add_command, attribution, labels
from trak.scoring import TopK
from trak.visualization import Selection

_EXAMPLES = f"""\
  trak top results
  trak top results --targets 0 1 -k 10
  trak top results --bottom --json > harmful.json
  trak top results --labels labels.json

{LABELS}"""


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(commands, "top", "the training examples that pushed targets' outputs up most", _EXAMPLES, run)
    add_choice(parser, " for each target (default: 10)")
    parser.add_argument("--bottom", action="store_true", help="those that pushed them down most")
    listed = "print JSON: a list of {target, indices, scores}, and labels"
    parser.add_argument("--json", action="store_true", help=listed)


def run(chosen: argparse.Namespace) -> str:
    """What is to be printed."""
    result = attribution(chosen)
    selection = Selection(result, targets=chosen.targets, **labels(chosen))
    found = result.top(chosen.k, chosen.bottom)
    if chosen.json:
        return json.dumps([_described(selection, found, t) for t in selection.targets], indent=2)
    named = chosen.labels is not None
    lines = [f"{'target':>8}  {'rank':>4}  {'train_index':>11}  {'score':<10}" + ("  label" if named else "")]
    for t in selection.targets:
        if named and (of := _labels_of(selection, t)):
            lines.append(f"{t:>8}  {', '.join(f'{name} {value}' for name, value in of.items())}")
        for rank, (index, score) in enumerate(zip(found.indices[t], found.scores[t], strict=True), 1):
            label = selection.train[index].label
            lines.append(f"{t:>8}  {rank:>4}  {index:>11}  {score:<+10.4g}  {label or ''}")
    return "\n".join(map(str.rstrip, lines))


def _described(selection: Selection, found: TopK, target: int) -> dict[str, Any]:
    labels = [selection.train[index].label for index in found.indices[target]]
    return {
        "target": target,
        **_labels_of(selection, target),
        "indices": found.indices[target].tolist(),
        "scores": [float(str(score)) for score in found.scores[target]],
        **({} if None in labels else {"labels": labels}),
    }


def _labels_of(selection: Selection, target: int) -> dict[str, str]:
    found = {"label": selection.target[target].label, "predicted": selection.predicted(target)}
    return {name: value for name, value in found.items() if value is not None}
