"""Normalizations: a product with the normalized input, and a sum."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from trak.gradients.layers.registry import ParameterUse, register_operation

Dims = Callable[[Tensor], Sequence[int]]


def _affine(
    by_weight: Callable[[Tensor, Tensor], Tensor], dims: Dims, input: Tensor, weight: Tensor | None, bias: Tensor | None
) -> list[ParameterUse]:
    """y = w · x̂ + b: ∂w is what `by_weight` says, ∂b = Σ g over the dimensions of (b, c, ...) that `dims` gives."""
    found = [] if weight is None else [ParameterUse(weight, by_weight, (input,))]
    return found if bias is None else [*found, ParameterUse(bias, lambda g: g.sum(tuple(dims(g))))]


def _product(normalize: Callable[[Tensor], Tensor], dims: Dims) -> Callable[[Tensor, Tensor], Tensor]:
    """∂w = Σ g x̂."""
    return lambda g, x: (g * normalize(x.flatten(0, 1)).view_as(g)).sum(tuple(dims(g)))


def _leading(shape: Sequence[int]) -> Dims:
    return lambda g: range(1, g.ndim - len(shape))


def _all_but_channels(g: Tensor) -> Sequence[int]:
    return (1, *range(3, g.ndim))


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
    dims = _leading(shape)
    return _affine(_product(lambda x: F.layer_norm(x, shape, None, None, eps), dims), dims, input, weight, bias)


@register_operation(F.rms_norm, torch.rms_norm)
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> list[ParameterUse]:
    """RMSNorm (Zhang & Sennrich, 2019)."""
    shape = tuple(normalized_shape)
    dims = _leading(shape)
    return _affine(_product(lambda x: F.rms_norm(x, shape, None, eps), dims), dims, input, weight, None)


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
    product = _product(lambda x: F.group_norm(x, num_groups, None, None, eps), _all_but_channels)
    return _affine(product, _all_but_channels, input, weight, bias)


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

    return _affine(by_weight, _all_but_channels, input, weight, bias)


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
    product = _product(lambda x: F.instance_norm(x, *kept, use_input_stats=use_input_stats, eps=eps), _all_but_channels)
    return _affine(product, _all_but_channels, input, weight, bias)
