"""Batches of token ids: their checks, empty texts, and the side that they are padded on."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trak.inputs.batches import Batch, first_row
from trak.inputs.fields import IGNORED


def is_text(batch: Batch) -> bool:
    """Whether a batch is a dict of token ids and what goes with them."""
    return isinstance(batch, Mapping) and batch.get("input_ids") is not None


def ignore_empty_texts(labels: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """The labels, with `IGNORED` for texts without a token, which have no output."""
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim < 2 or len(mask) != len(labels):
        return labels
    empty = ~(mask != 0).flatten(1).any(1)
    return labels.masked_fill(empty.reshape(-1, *[1] * (labels.ndim - 1)), IGNORED)


def check_text(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Raise a ValueError unless token ids are among the model's, where it tells how many it has, and the attention
    mask, where there is one of their shape, is of zeros and ones with a one in each row."""
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if not isinstance(ids, Tensor):
        return
    table = getattr(model, "get_input_embeddings", lambda: None)()
    if isinstance(table, nn.Embedding) and (outside := (ids < 0) | (ids >= table.num_embeddings)).any():
        raise ValueError(
            f"token id out of range: {int(ids[outside][0])} in row {first_row(outside)} of the batch, but the model "
            f"has {table.num_embeddings} (0 to {table.num_embeddings - 1}); use the tokenizer that the model was "
            "trained with"
        )
    if not isinstance(mask, Tensor) or mask.ndim != ids.ndim:
        return
    if mask.shape != ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, but input_ids {tuple(ids.shape)}; give one number for "
            "each token"
        )
    other = (mask != 0) & (mask != 1)
    if other.any():
        raise ValueError(
            f"attention_mask must hold 1 for tokens and 0 for padding, got {mask[other][0].item():g} in row "
            f"{first_row(other)} of the batch; if these are labels, pass a dict"
        )
    empty = ~mask.bool().flatten(1).any(1)
    if empty.any():
        raise ValueError(
            f"row {first_row(empty)} of the batch is empty: its attention_mask is 0 everywhere; leave it out"
        )


def move_padding_right(batch: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """Move the padding in front of each row to its end, so that absolute positions count from an example's first token.
    Fields with an entry for each token move along, but for those named in `others`."""
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return dict(batch)
    first = (mask != 0).long().argmax(1, keepdim=True)
    order = (torch.arange(mask.shape[1], device=mask.device) + first) % mask.shape[1]

    def moved(t: Any) -> Any:
        if not isinstance(t, Tensor) or t.ndim < 2 or t.shape[:2] != mask.shape:
            return t
        return t.take_along_dim(order.reshape(*order.shape, *[1] * (t.ndim - 2)), 1)

    return {key: value if key in others else moved(value) for key, value in batch.items()}
