"""What commands share."""

import argparse
from typing import Any

from trak.attribution import StoredAttribution


def add_command(commands: Any, name: str, what: str, examples: str) -> argparse.ArgumentParser:
    """A parser for a command, with examples in its help; its first argument is the store."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=what[:1].upper() + what[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", help="directory or URL of the store: the save_dir of trak.attribute")
    return parser


def add_choice(parser: argparse.ArgumentParser, k: str) -> None:
    """Options that say which scores are meant."""
    parser.add_argument("--exp-name", default="targets", help="experiment in the store (default: targets)")
    parser.add_argument("--targets", type=int, nargs="+", metavar="T", help="which targets (default: all)")
    parser.add_argument("-k", type=int, help=f"how many training examples{k}")
    parser.add_argument("--damping", help="relative damping, or auto (default: auto)")


def attribution(chosen: argparse.Namespace) -> StoredAttribution:
    """What the options of `add_choice` mean."""
    return StoredAttribution.open(chosen.store, chosen.exp_name, damping=chosen.damping)
