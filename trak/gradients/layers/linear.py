"""Linear maps: the gradient by the weight is a sum of outer products over positions."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from trak.gradients.layers.registry import ParameterUse, register_operation
from trak.projectors import OuterProducts


def positions(t: Tensor) -> Tensor:
    """(b, c, ..., d) as (b, positions, d)."""
    return t.reshape(len(t), -1, t.shape[-1])


def outer_products(g: Tensor, x: Tensor, transposed: bool = False) -> OuterProducts:
    """Σ_s g_s x_sᵀ of each example, or with `transposed` Σ_s x_s g_sᵀ."""
    left, right = (x, g) if transposed else (g, x)
    return OuterProducts(positions(left), positions(right))


def summed(g: Tensor) -> Tensor:
    """The sum over all but the last dimension of each example, (b, d)."""
    return positions(g).sum(1)


@register_operation(F.linear)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[ParameterUse] | None:
    """y = x Wᵀ + b: ∂W = Σ_s g_s x_sᵀ, ∂b = Σ_s g_s."""
    if input.ndim < 2 or weight.ndim != 2:
        return None
    uses = [ParameterUse(weight, outer_products, (input,), 1)]
    return uses if bias is None else [*uses, ParameterUse(bias, summed)]


@register_operation(torch.addmm, torch.Tensor.addmm)
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, **scales: float) -> list[ParameterUse] | None:
    """y = b + x W (transformers' Conv1D): ∂W = Σ_s x_s g_sᵀ, ∂b = Σ_s g_s."""
    if scales or input.ndim != 1 or len(input) != mat2.shape[1]:
        return None
    return [ParameterUse(input, summed), ParameterUse(mat2, partial(outer_products, transposed=True), (mat1,), 1)]


@register_operation(torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__)
def matmul(input: Tensor, other: Tensor) -> list[ParameterUse] | None:
    """y = x W."""
    if input.ndim < 2 or other.ndim != 2:
        return None
    return [ParameterUse(other, partial(outer_products, transposed=True), (input,), 1)]
