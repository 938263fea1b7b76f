"""Sums and products with parameters that no module wraps: positional embeddings, layer scales, class tokens."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trak.gradients.layers.registry import ParameterUse, register_operation


def _broadcast(parameter: Tensor, result_ndim: int) -> bool:
    """Whether the examples of a result share the parameter."""
    return parameter.ndim < result_ndim or (parameter.ndim == result_ndim and parameter.shape[0] == 1)


def _reduced(t: Tensor, shape: torch.Size) -> Tensor:
    """Sum (b, c, ...) over what broadcasting repeated of a parameter: `(b, *shape)`."""
    aligned = (1,) * (t.ndim - 1 - len(shape)) + tuple(shape)
    repeated = [dim + 1 for dim, size in enumerate(aligned) if dim and size == 1]
    return t.sum((1, *repeated)).reshape(len(t), *shape)


def _binary(
    by_first: Callable[..., Tensor], by_second: Callable[..., Tensor], needs_other: bool
) -> Callable[..., list[ParameterUse] | None]:
    """The rule of an elementwise y = op(u, v), from ∂u(g, v, u) and ∂v(g, u, v)."""

    def rule(input: Any, other: Any, *, alpha: float = 1, **options: Any) -> list[ParameterUse] | None:
        if options or alpha != 1 or not (isinstance(input, Tensor) and isinstance(other, Tensor)):
            return None
        ndim, pairs = max(input.ndim, other.ndim), ((input, other, by_first), (other, input, by_second))
        return [use(u, v, slope) for u, v, slope in pairs if _broadcast(u, ndim) and v.ndim == ndim]

    def use(parameter: Tensor, rest: Tensor, slope: Callable[..., Tensor]) -> ParameterUse:
        shape, value = parameter.shape, parameter.detach()
        if needs_other:
            return ParameterUse(parameter, lambda g, x: _reduced(slope(g, x, value), shape), (rest,))
        return ParameterUse(parameter, lambda g: _reduced(slope(g), shape))

    return rule


register_operation(torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__radd__)(
    _binary(lambda g: g, lambda g: g, False)
)
register_operation(torch.sub, torch.Tensor.sub, torch.Tensor.sub_)(_binary(lambda g: g, lambda g: -g, False))
register_operation(torch.mul, torch.Tensor.mul, torch.Tensor.__rmul__)(
    _binary(lambda g, v, u: g * v, lambda g, u, v: g * u, True)
)
register_operation(torch.div, torch.Tensor.div, torch.true_divide)(
    _binary(lambda g, v, u: g / v, lambda g, u, v: -g * u / v**2, True)
)


@register_operation(torch.where)
def where(condition: Tensor, input: Any, other: Any) -> list[ParameterUse]:
    """y = u where a condition holds, v elsewhere: a bias of positions under each example's mask."""

    def use(parameter: Tensor, holds: Tensor) -> ParameterUse:
        return ParameterUse(parameter, lambda g, c: _reduced(g.masked_fill(~c, 0), parameter.shape), (holds,))

    pairs = ((input, condition), (other, ~condition))
    return [use(u, c) for u, c in pairs if isinstance(u, Tensor) and _broadcast(u, condition.ndim)]


@register_operation(torch.Tensor.expand)
def expand(input: Tensor, *sizes: Any) -> list[ParameterUse] | None:
    """A class token seen by every example."""
    target = _unpacked(sizes)
    if not _broadcast(input, len(target)):
        return None
    return [ParameterUse(input, lambda g: _reduced(g, input.shape), copies=target[0] if len(target) > 1 else 0)]


@register_operation(torch.Tensor.repeat)
def repeat(input: Tensor, *repeats: Any) -> list[ParameterUse]:
    """A class token copied for every example."""
    times = _unpacked(repeats)
    sizes = (1,) * (len(times) - input.ndim) + tuple(input.shape)

    def block(g: Tensor) -> Tensor:
        pairs = [number for pair in zip(times[1:], sizes[1:], strict=True) for number in pair]
        parts = g.reshape(len(g), -1, sizes[0], *pairs)
        return parts.sum((1, *range(3, parts.ndim, 2))).reshape(len(g), *input.shape)

    return [ParameterUse(input, block, copies=times[0] if len(times) > 1 else 0)]


def _unpacked(sizes: Any) -> Any:
    return sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes


@register_operation(F.prelu, torch.prelu)
def prelu(input: Tensor, weight: Tensor) -> list[ParameterUse] | None:
    """y = max(x, 0) + a · min(x, 0) (He et al., 2015): ∂a = Σ g · min(x, 0)."""

    def block(g: Tensor, x: Tensor) -> Tensor:
        dims = (1, *range(3, g.ndim)) if len(weight) > 1 else tuple(range(1, g.ndim))
        return (g * x.clamp(max=0)).sum(dims).reshape(len(g), len(weight))

    return [ParameterUse(weight, block, (input,))] if weight.ndim == 1 and input.ndim > 1 else None
