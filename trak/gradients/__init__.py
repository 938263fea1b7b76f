"""Per-example gradients and what becomes of them."""

from trak.gradients.base import ENGINES, Engine, GradientSink, register_engine
from trak.gradients.engine_choice import check_engine_name, choose_engine
from trak.gradients.engine_selector import EngineSelector
from trak.gradients.featurize import MEMORY_BUDGET, ProjectedRows, check_finite, check_memory_budget, featurize
from trak.gradients.functional import FunctionalEngine
from trak.gradients.hooks import HooksEngine
from trak.gradients.layers import ParameterUse, UnsupportedParameterError, register_layer, register_operation
from trak.gradients.loop import LoopEngine
from trak.gradients.parameters import differentiable, select_parameters

__all__ = [
    "ENGINES",
    "MEMORY_BUDGET",
    "Engine",
    "EngineSelector",
    "FunctionalEngine",
    "GradientSink",
    "HooksEngine",
    "LoopEngine",
    "ParameterUse",
    "ProjectedRows",
    "UnsupportedParameterError",
    "check_engine_name",
    "check_finite",
    "check_memory_budget",
    "choose_engine",
    "differentiable",
    "featurize",
    "register_engine",
    "register_layer",
    "register_operation",
    "select_parameters",
]
