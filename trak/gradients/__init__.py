"""Per-example gradients and what becomes of them."""

from trak.gradients.base import Engine
from trak.gradients.choose import ENGINES, check_engine_name, choose_engine
from trak.gradients.chosen import Chosen
from trak.gradients.featurize import MEMORY_BUDGET, Rows, check_finite, check_memory_budget, featurize
from trak.gradients.functional import Functional
from trak.gradients.layered import Layers
from trak.gradients.layers import Uncovered, Use, register_layer, register_operation
from trak.gradients.single import Single
from trak.gradients.state import differentiable, select_parameters

__all__ = [
    "ENGINES",
    "MEMORY_BUDGET",
    "Chosen",
    "Engine",
    "Functional",
    "Layers",
    "Rows",
    "Single",
    "Uncovered",
    "Use",
    "check_engine_name",
    "check_finite",
    "check_memory_budget",
    "choose_engine",
    "differentiable",
    "featurize",
    "register_layer",
    "register_operation",
    "select_parameters",
]
