"""Convolutions in one, two and three dimensions."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trak.gradients.layers.registry import ParameterUse, register_operation
from trak.projectors import Block, OuterProducts, reusable_buffer

# Unfolding a layer's inputs makes its gradient a sum of outer products, which is projected some rows at a time. With
# many positions the copies are larger than the gradient, and convolving each example with its g is faster.
_FEW_POSITIONS = 32


def _tuple(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


@register_operation(F.conv1d, F.conv2d, F.conv3d)
def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> list[ParameterUse] | None:
    """∂W is each example's own convolution of its input with g, ∂b the sum of g over positions."""
    dims = weight.ndim - 2
    if input.ndim != dims + 2:
        return None
    kernel = tuple(weight.shape[2:])
    step, spacing = _tuple(stride, dims), _tuple(dilation, dims)
    margins: list[int] = []
    if padding == "same":
        # As torch does: what can't be split evenly goes to the end.
        totals = [d * (k - 1) for d, k in zip(spacing, kernel, strict=True)]
        around = tuple(total // 2 for total in totals)
        margins = [margin for total in reversed(totals) for margin in (0, total % 2)]
    else:
        around = (0,) * dims if isinstance(padding, str) else _tuple(padding, dims)

    positions = math.prod(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(input.shape[2:], around, spacing, kernel, step, strict=True)
    )
    shape, patch = tuple(weight.shape), math.prod(weight.shape[1:])

    def pointwise(g: Tensor, x: Tensor) -> Block:
        for dim, s in enumerate(step):
            x = x[(slice(None),) * (3 + dim) + (slice(None, None, s),)] if s > 1 else x
        return OuterProducts(_pixels(g), _pixels(x), shape)

    def unfolded(g: Tensor, x: Tensor) -> Block:
        columns = F.unfold(x.flatten(0, 1), kernel, spacing, around, step)
        return OuterProducts(_pixels(g), columns.transpose(1, 2).reshape(len(x), -1, patch), shape)

    def convolved(g: Tensor, x: Tensor) -> Block:
        if any(margins):
            x = F.pad(x.flatten(0, 1), margins).unflatten(0, x.shape[:2])
        result = reusable_buffer((len(g), *shape), g)
        none: Any = [0] * dims
        for i in range(len(g)):
            result[i] = torch.ops.aten.convolution_backward(
                g[i], x[i], weight, None, step, around, spacing, False, none, groups, (False, True, False)
            )[1]
        return result

    plain = groups == 1 and not any(margins)
    block, elements = convolved, 0
    if plain and patch == weight.shape[1] and not any(around):
        block, elements = pointwise, 1
    elif plain and dims == 2 and positions <= _FEW_POSITIONS:
        block, elements = unfolded, positions * patch
    uses = [ParameterUse(weight, block, (input,), elements)]
    return uses if bias is None else [*uses, ParameterUse(bias, lambda g: g.sum((1, *range(3, g.ndim))))]


def _pixels(t: Tensor) -> Tensor:
    """(b, c, channels, *space) as (b, c · positions, channels)."""
    return t.flatten(3).transpose(2, 3).reshape(len(t), -1, t.shape[2])
