"""python -m trak: self-check; python -m trak info DIR: what a store holds."""

import argparse
import json
import sys
from collections.abc import Sequence

from trak.store.summary import describe, missing, ranges, summarize


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m trak",
        description="Without a command: check that trak works on this machine.",
        epilog="example: python -m trak info ./trak_results",
    )
    commands = parser.add_subparsers(dest="command")
    info = commands.add_parser("info", help="what a feature store holds")
    info.add_argument("store", help="directory or URL of the store")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.add_argument("--missing", action="store_true", help="print only which training examples are not featurized")
    info.add_argument(
        "--per-task",
        type=int,
        metavar="ROWS",
        help="with --missing: print the numbers of the tasks, of so many rows each",
    )
    info.add_argument(
        "--checkpoints", type=int, metavar="N", help="with --missing: how many there should be, model_ids 0 to N - 1"
    )
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        from trak.selfcheck import selfcheck

        print(selfcheck())
        return 0
    try:
        if chosen.missing:
            print(ranges(missing(chosen.store, chosen.checkpoints, chosen.per_task or 1)))
            return 0
        found = describe(chosen.store)
    except (ValueError, OSError) as error:
        print(f"trak: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2) if chosen.json else summarize(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
