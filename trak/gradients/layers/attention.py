"""torch's MultiheadAttention, as the linear maps and the attention that it is made of."""

import inspect
import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trak.gradients.layers.registry import register_decomposition

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


@register_decomposition(F.multi_head_attention_forward)
def multi_head_attention(*args: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention (Vaswani et al., 2017), whose arguments have positions first: (L, B, E)."""
    bound = _SIGNATURE.bind(*args, **options)
    bound.apply_defaults()
    given = SimpleNamespace(**bound.arguments)
    query, key, value, heads = given.query, given.key, given.value, given.num_heads
    static = given.static_k is not None or given.static_v is not None
    if query.ndim != 3 or static or (given.training and given.dropout_p > 0):
        raise NotImplementedError("MultiheadAttention without a batch, with static keys or with dropout")
    same = key is query and value is query
    # Examples first, so that a row of every linear map belongs to one example.
    query = query.transpose(0, 1)
    key, value = (query, query) if same else (key.transpose(0, 1), value.transpose(0, 1))
    if same and not given.use_separate_proj_weight:
        q, k, v = F.linear(query, given.in_proj_weight, given.in_proj_bias).chunk(3, dim=-1)
    else:
        separate = (given.q_proj_weight, given.k_proj_weight, given.v_proj_weight)
        weights = separate if given.use_separate_proj_weight else given.in_proj_weight.chunk(3)
        biases = (None,) * 3 if given.in_proj_bias is None else given.in_proj_bias.chunk(3)
        q, k, v = (F.linear(t, w, b) for t, w, b in zip((query, key, value), weights, biases, strict=True))
    examples, keys = len(query), k.shape[1]
    if given.bias_k is not None and given.bias_v is not None:
        pairs = ((k, given.bias_k), (v, given.bias_v))
        k, v = (torch.cat((t, bias.expand(examples, 1, -1)), dim=1) for t, bias in pairs)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if given.add_zero_attn:
        k, v = (torch.cat((t, t.new_zeros(examples, heads, 1, t.shape[-1])), dim=2) for t in (k, v))
    mask = _mask(given.attn_mask, given.key_padding_mask, q, k.shape[2] - keys)
    attention = None
    if given.need_weights:
        logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        attention = (logits if mask is None else logits + mask).softmax(-1)
        mixed = attention @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=given.is_causal and mask is None)
    result = F.linear(mixed.transpose(1, 2).flatten(2), given.out_proj_weight, given.out_proj_bias).transpose(0, 1)
    if attention is not None and given.average_attn_weights:
        attention = attention.mean(1)
    return result, attention


@register_decomposition(F.scaled_dot_product_attention)
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **options: Any
) -> Any:
    """Attention with a learned bias that the examples share, as T5's relative positions."""
    if attn_mask is None or attn_mask.ndim > query.ndim or (attn_mask.ndim == query.ndim and len(attn_mask) > 1):
        return NotImplemented
    bias = attn_mask[(None,) * (query.ndim - attn_mask.ndim)].expand(len(query), *[-1] * (query.ndim - 1))
    return F.scaled_dot_product_attention(query, key, value, bias, *args, **options)


def _mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, extra: int) -> Tensor | None:
    """Both masks as numbers to add to the logits, for `extra` keys more that no mask hides."""
    parts = []
    if attn_mask is not None:
        mask = _additive(attn_mask, q)
        parts.append(mask.unflatten(0, q.shape[:2]) if mask.ndim == 3 else mask)
    if key_padding_mask is not None:
        parts.append(_additive(key_padding_mask, q)[:, None, None, :])
    return F.pad(sum(parts[1:], start=parts[0]), (0, extra)) if parts else None


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
    return mask.to(like.dtype)
