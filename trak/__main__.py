"""python -m trak: see `trak.cli`."""

import sys

from trak.cli import main

if __name__ == "__main__":
    sys.exit(main())
