"""Questions that people have, one function each.

`mislabelled`: which training examples are probably labelled wrong? `removal`: which would I take away to change this
prediction, and would it? `rests_on`: what do these targets rest on? `value`: which training examples help, and which
are useless? `compare`: what do two models learn differently? Every answer prints, becomes a table by `to_frame()` and
draws itself by `plot()`.
"""

from trak.questions.compare import Comparison, compare
from trak.questions.mislabelled import Suspects, mislabelled
from trak.questions.removal import Removal, removal
from trak.questions.removed import Removed
from trak.questions.rests_on import Support, rests_on
from trak.questions.value import Values, value

__all__ = [
    "Comparison",
    "Removal",
    "Removed",
    "Support",
    "Suspects",
    "Values",
    "compare",
    "mislabelled",
    "removal",
    "rests_on",
    "value",
]
