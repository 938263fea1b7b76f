"""Normalizations: a product with the normalized input, and a sum."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from trak.gradients.layers.registry import ParameterUse, register_operation

_Product = Callable[[Tensor, Tensor], Tensor]


def _summed(g: Tensor, trailing: int | None = None) -> Tensor:
    """Sum (b, c, ...) over all but examples and the last `trailing` dimensions; for None over all but channels."""
    return g.sum((1, *range(3, g.ndim)) if trailing is None else tuple(range(1, g.ndim - trailing)))


def _affine(
    by_weight: _Product, input: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: int | None = None
) -> list[ParameterUse]:
    """y = w · x̂ + b: ∂w is what `by_weight` says, ∂b = Σ g."""
    found = [] if weight is None else [ParameterUse(weight, by_weight, (input,))]
    return found if bias is None else [*found, ParameterUse(bias, partial(_summed, trailing=trailing))]


def _product(normalize: Callable[[Tensor], Tensor], trailing: int | None = None) -> _Product:
    """∂w = Σ g x̂."""
    return lambda g, x: _summed(g * normalize(x.flatten(0, 1)).view_as(g), trailing)


@register_operation(F.layer_norm, torch.layer_norm)
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> list[ParameterUse]:
    """LayerNorm (Ba et al., 2016)."""
    shape = tuple(normalized_shape)
    product = _product(lambda x: F.layer_norm(x, shape, None, None, eps), len(shape))
    return _affine(product, input, weight, bias, len(shape))


@register_operation(F.rms_norm, torch.rms_norm)
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> list[ParameterUse]:
    """RMSNorm (Zhang & Sennrich, 2019)."""
    shape = tuple(normalized_shape)
    return _affine(_product(lambda x: F.rms_norm(x, shape, None, eps), len(shape)), input, weight, None)


@register_operation(F.group_norm, torch.group_norm)
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> list[ParameterUse]:
    """GroupNorm (Wu & He, 2018)."""
    return _affine(_product(lambda x: F.group_norm(x, num_groups, None, None, eps)), input, weight, bias)


@register_operation(F.batch_norm)
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[ParameterUse] | None:
    """BatchNorm (Ioffe & Szegedy, 2015) by its running statistics."""
    if training or running_mean is None or running_var is None:
        return None  # the examples of a batch then depend on each other
    mean, scale = running_mean, (running_var + eps).rsqrt()

    def by_weight(g: Tensor, x: Tensor) -> Tensor:
        # Σ g x̂ without x̂: a dot product for each example and channel, and its share of the mean.
        g, x = (t.transpose(1, 2).flatten(3).flatten(2) for t in (g, x))
        dots = torch.matmul(g.unsqueeze(-2), x.unsqueeze(-1)).flatten(2).squeeze(-1)
        return (dots - mean * g.sum(-1)) * scale

    return _affine(by_weight, input, weight, bias)


@register_operation(F.instance_norm)
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[ParameterUse] | None:
    """InstanceNorm (Ulyanov et al., 2016); of its running statistics none is changed here."""
    if use_input_stats and math.prod(input.shape[2:]) == 1:
        return None
    kept = (None, None) if use_input_stats else (running_mean, running_var)
    product = _product(lambda x: F.instance_norm(x, *kept, use_input_stats=use_input_stats, eps=eps))
    return _affine(product, input, weight, bias)
