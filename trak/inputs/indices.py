"""Which rows of a data set a batch's examples are."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from trak.inputs import batches
from trak.inputs.batches import Batch

Indices: TypeAlias = Sequence[int] | np.ndarray | torch.Tensor


def row_indices(
    batch: Batch, inds: Indices | None, num_samples: int | None, following: int, limit: int, limit_name: str
) -> np.ndarray:
    """Which rows a batch's examples are, int64 (B,).

    Args:
        batch: the batch.
        inds: their indices, if the user gave them; otherwise the ones from `following` on.
        num_samples: the batch's size according to the user, if given.
        following: the first row that no batch has claimed yet.
        limit: number of rows.
        limit_name: what the user calls it.

    Raises:
        ValueError: for indices out of range, repeated, or of another length than the batch.
        TypeError: if they are no integers.
    """
    count = batches.size(batch)
    if num_samples is not None and num_samples != count:
        raise ValueError(
            f"num_samples={num_samples}, but the batch holds {count} examples; leave num_samples out (the last batch "
            "of a loader is often smaller)"
        )
    if inds is None:
        if following + count > limit:
            raise ValueError(
                f"more examples than {limit_name}={limit}: this batch would reach {following + count}; pass the right "
                f"{limit_name}, or the examples' indices as inds (index_key of trak.attribute)"
            )
        return np.arange(following, following + count)
    try:
        indices = np.asarray(inds.cpu() if isinstance(inds, torch.Tensor) else inds).reshape(-1)
    except ValueError as error:
        raise TypeError(f"inds must be one list of integers, got {inds!r:.80}; pass one for each example") from error
    if indices.dtype.kind not in "iu":
        raise TypeError(f"inds must be integers, got {indices.dtype}; pass a tensor or list of whole numbers")
    indices = indices.astype(np.int64)
    if len(indices) != count:
        raise ValueError(f"inds has {len(indices)} entries, but the batch holds {count} examples; give one for each")
    outside = (indices < 0) | (indices >= limit)
    if outside.any():
        raise ValueError(
            f"index out of range in inds: {int(indices[outside][0])}, expected 0 to {limit - 1} "
            f"({limit_name}={limit}); count from 0, or pass the right {limit_name}"
        )
    unique, counts = np.unique(indices, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"index {int(unique[counts > 1][0])} is repeated in inds; give each example once in a batch")
    return indices
