"""Run the command line: `python -m trak` is the same as the command `trak`."""

import sys

from trak.cli import main

if __name__ == "__main__":
    sys.exit(main())
