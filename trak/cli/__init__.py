"""trak: what can be asked without a program."""

import argparse
import sys
from collections.abc import Sequence

from trak.cli import info, plan, repair, report, top

COMMANDS = (info, top, report, repair, plan)

_EXAMPLES = """\
examples:
  trak                                    does trak work on this machine?
  trak info results                       what does the store hold?
  trak top results --targets 0 1 -k 10    which training examples made these predictions?
  trak report results --output report.html
  trak repair results                     after a disk has failed
  trak plan --examples 1e6 --params 1e8   what will it cost?
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 if what was asked for can't be had."""
    parser = argparse.ArgumentParser(
        prog="trak",
        description="Which training examples made my model make this prediction? Without a command: check that trak "
        "works on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    for command in COMMANDS:
        command.add(commands)
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        from trak.attribution.self_check import self_check

        print(self_check())
        return 0
    try:
        print(chosen.run(chosen))
    except (ValueError, OSError) as error:
        print(f"trak: {error}", file=sys.stderr)
        return 1
    return 0
