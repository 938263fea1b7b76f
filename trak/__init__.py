"""trak: which training examples made my model make this prediction?"""

from trak import projectors, tasks
from trak.api import attribute
from trak.attribution import Attribution
from trak.traker import TRAKer
from trak.utils import test_install
from trak.version import __version__

__all__ = ["Attribution", "TRAKer", "__version__", "attribute", "projectors", "tasks", "test_install"]
