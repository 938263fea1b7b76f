"""Look-ups: only the rows that were looked up have a gradient."""

from torch import Tensor
from torch.nn import functional as F

from trak.gradients.layers.registry import ParameterUse, register_operation
from trak.projectors import SparseRows


@register_operation(F.embedding)
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> list[ParameterUse] | None:
    """y_s = W[i_s]: row i of ∂W is the sum of g_s over the positions s that looked it up."""
    if max_norm is not None or scale_grad_by_freq:
        return None
    rows = len(weight)

    def block(g: Tensor, indices: Tensor) -> SparseRows:
        flat, values = indices.reshape(len(indices), -1), g.reshape(len(g), -1, g.shape[-1])
        if padding_idx is not None:
            values = values.masked_fill((flat == padding_idx % rows).unsqueeze(-1), 0)
        return SparseRows(flat, values, rows)

    return [ParameterUse(weight, block, (input,), 1)]
