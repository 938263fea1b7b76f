"""Views of attributions: `show` in a notebook or a terminal, `report` as one file for a browser."""

from trak.visualization.display_mixin import DisplayMixin
from trak.visualization.selection import RankedExamples, Selection
from trak.visualization.show import AttributionView

__all__ = ["AttributionView", "DisplayMixin", "RankedExamples", "Selection"]
