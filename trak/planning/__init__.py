"""What an attribution will cost, before it is begun: formulas with constants that were measured.

docs/scaling.md says what is assumed, and how predictions compare with runs of 10³ to 10⁷ examples.
"""

from trak.planning.constants import Constants, Line
from trak.planning.limits import Limit, limits
from trak.planning.phases import Cost, phases
from trak.planning.work import Work

__all__ = ["Constants", "Cost", "Limit", "Line", "Work", "limits", "phases"]
