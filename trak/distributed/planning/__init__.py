"""What an attribution will cost, before it is begun: formulas with constants that were measured.

docs/scaling.md says what is assumed, and how predictions compare with runs of 10³ to 10⁷ examples.
"""

from trak.distributed.planning.constants import Constants, Line
from trak.distributed.planning.limits import Limit, limits
from trak.distributed.planning.phases import Cost, phases
from trak.distributed.planning.workload import Workload

__all__ = ["Constants", "Cost", "Limit", "Line", "Workload", "limits", "phases"]
