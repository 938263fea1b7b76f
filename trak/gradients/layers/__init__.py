"""Per-example gradients from one batched forward and backward pass: what each operation contributes."""

from trak.gradients.layers import attention, convolution, elementwise, embedding, linear, normalization
from trak.gradients.layers.capture import Capture, UnsupportedParameterError
from trak.gradients.layers.recurrent import stepwise_recurrence
from trak.gradients.layers.registry import LAYERS, OPERATIONS, ParameterUse, register_layer, register_operation

__all__ = [
    "LAYERS",
    "OPERATIONS",
    "Capture",
    "ParameterUse",
    "UnsupportedParameterError",
    "attention",
    "convolution",
    "elementwise",
    "embedding",
    "linear",
    "normalization",
    "register_layer",
    "register_operation",
    "stepwise_recurrence",
]
