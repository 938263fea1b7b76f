"""Which operations and layers the engine knows, and how others are made known to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from trak.projectors import Block

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ParameterUse:
    """How an operation used one parameter.

    The engine keeps `saved` until the gradient g of the operation's result is known and then asks
    for `block(g, *saved)`, the gradient of Σ g · result by the parameter for each example.
    """

    parameter: Tensor
    """The argument of the operation."""
    block: Callable[..., Block]
    """Gets g and each saved tensor as (b, c, ...), b examples of c leading entries, where the
    operation saw b · c; returns a block of shape `(b, *parameter.shape)`."""
    saved: tuple[Tensor, ...] = ()
    """Tensors that, as the result, hold the same number of leading entries for each example."""
    elements: int = 0
    """Numbers that a block takes for each example, if other than the parameter's; decides how many come at once."""
    copies: int = 0
    """How many leading entries the operation itself makes of one, where it repeats the parameter."""


Rule = Callable[..., Sequence[ParameterUse] | None]
LayerRule = Callable[[Any, tuple[Tensor, ...], Tensor], Mapping[str, Block]]

OPERATIONS: dict[Any, Rule] = {}
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {}
LAYERS: dict[type[nn.Module], LayerRule] = {}


def register_operation(*functions: Any) -> Callable[[F], F]:
    """Decorator: make a rule known for torch functions.

    A rule takes what the function takes and returns a `ParameterUse` for each parameter it may be given, or
    None if it has no formula for these arguments.
    """
    return _register(OPERATIONS, functions)


def register_decomposition(*functions: Any) -> Callable[[F], F]:
    """Decorator: run this in place of torch functions that are given parameters, and capture what it is made of.

    It may return NotImplemented for arguments that it does not know.
    """
    return _register(DECOMPOSITIONS, functions)


def register_layer(*types: type[nn.Module]) -> Callable[[F], F]:
    """Decorator: make per-example gradients known for layers of your own.

    A layer made of ordinary operations (linear maps, convolutions, normalizations, products and
    sums with parameters) needs none. The function is called as `rule(module, inputs, g)`, with the
    positional inputs of the layer's forward and the gradient g of its result, each with examples
    along the first dimension, and returns `{parameter name: gradients (B, *shape)}`::

        @trak.gradients.register_layer(Scale)
        def scale(module, inputs, g):
            return {"gain": (g * inputs[0]).flatten(1).sum(1, keepdim=True)}
    """
    return _register(LAYERS, types)


def _register(table: dict[Any, Any], keys: Sequence[Any]) -> Callable[[F], F]:
    def register(rule: F) -> F:
        table.update(dict.fromkeys(keys, rule))
        return rule

    return register
