"""trak: which training examples made my model make this prediction?"""

from trak import projectors, tasks
from trak.attribution import Attribution, TRAKer, attribute
from trak.attribution.self_check import test_install
from trak.version import __version__

__all__ = ["Attribution", "TRAKer", "__version__", "attribute", "projectors", "tasks", "test_install"]
