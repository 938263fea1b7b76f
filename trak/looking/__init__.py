"""Looking at attributions: `show` in a notebook or a terminal, `report` as one file for a browser."""

from trak.looking.lookable import Lookable
from trak.looking.selection import Ranked, Selection, check_targets
from trak.looking.show import Shown

__all__ = ["Lookable", "Ranked", "Selection", "Shown", "check_targets"]
