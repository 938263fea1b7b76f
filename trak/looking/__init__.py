"""Looking at attributions: `show` in a notebook or a terminal, `report` as one file for a browser."""

from trak.looking.report import write_report
from trak.looking.selection import Ranked, Selection, check_targets
from trak.looking.show import Shown
from trak.looking.summary import summary_html

__all__ = ["Ranked", "Selection", "Shown", "check_targets", "summary_html", "write_report"]
