"""What commands share."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trak.attribution.results import StoredAttribution
from trak.scoring import WEIGHTINGS

LABELS = """\
labels.json holds any of these lists, one entry for each example, and the names of labels that are numbers:
  {"train": [3, 0, …], "targets": [7, …], "predicted": [1, …], "names": ["airplane", …]}
"""
_OPTIONS = {
    "train": "train_labels",
    "targets": "target_labels",
    "predicted": "predicted_labels",
    "names": "label_names",
}
_STORE: dict[str, Any] = {"help": "directory or URL of the store: the save_dir of trak.attribute"}


def add_command(
    commands: Any, name: str, what: str, examples: str, run: Callable[..., str], store: Mapping[str, Any] = _STORE
) -> argparse.ArgumentParser:
    """A parser for a command that `run` carries out, with examples in its help; its first argument is the store."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=what, epilog=f"examples:\n{examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.description = what[:1].upper() + what[1:] + "."
    parser.add_argument("store", **dict(store))
    parser.set_defaults(run=run)
    return parser


def add_choice(parser: argparse.ArgumentParser, k: str) -> None:
    """Options that say which scores are meant."""
    parser.add_argument("--exp-name", default="targets", help="experiment in the store (default: targets)")
    parser.add_argument("--targets", type=int, nargs="+", metavar="T", help="which targets (default: all)")
    parser.add_argument("-k", type=int, help=f"how many training examples{k}")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="JSON with labels, see below")
    recorded = "(default: as recorded by trak.attribute)"
    parser.add_argument("--damping", help=f"relative damping, or auto {recorded}")
    parser.add_argument("--lambda-reg", type=float, help=f"absolute damping {recorded}")
    parser.add_argument("--weighting", choices=WEIGHTINGS, help=f"weighting of training examples {recorded}")
    equal = f"give every checkpoint equal weight {recorded}"
    parser.add_argument("--normalize-checkpoints", action=argparse.BooleanOptionalAction, help=equal)


def attribution(chosen: argparse.Namespace) -> StoredAttribution:
    """What the options of `add_choice` mean."""
    options = "damping", "lambda_reg", "weighting", "normalize_checkpoints"
    found = StoredAttribution.open(chosen.store, chosen.exp_name, **{name: getattr(chosen, name) for name in options})
    there = found.experiment.store.checkpoints()
    if others := [i for i in there if i not in found.model_ids]:
        print(
            f"trak: by {len(found.model_ids)} of {len(there)} checkpoints; model_ids {others} have not featurized the "
            f"targets of {found.name!r}: run the script to its end, or see trak info",
            file=sys.stderr,
        )
    return found


def labels(chosen: argparse.Namespace) -> dict[str, Any]:
    """What the file of `--labels` holds, as options of `trak.visualization.Selection`; nothing without one."""
    path: Path | None = chosen.labels
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is no JSON: {error}; write a JSON object, such as {{"train": [...]}}') from error
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
