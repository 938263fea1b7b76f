"""The indices of a batch's examples in their data set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

from trak._utils.typing import Array
from trak._utils.validation import as_array
from trak.inputs import batches
from trak.inputs.batches import Batch

Indices: TypeAlias = Sequence[int] | Array | torch.Tensor


def row_indices(
    batch: Batch, inds: Indices | None, num_samples: int | None, following: int, limit: int, limit_name: str
) -> Array:
    """The indices of a batch's examples, int64 (B,): `inds`, or else the ones from `following` on, which no batch has
    claimed yet. Checked against the size and the number of rows that the user gave."""
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
        indices = as_array(inds).reshape(-1)
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


def iter_with_indices(loader: Iterable[Batch], index_key: str | int | None) -> Iterator[tuple[Batch, Array | None]]:
    """The batches, each with its examples' indices, or None where they come in order."""
    try:
        for batch in loader:
            yield split_off_indices(batch, index_key)
    except TypeError as error:
        if "default_collate: batch must contain" in str(error):
            error.add_note(
                "The data set's examples have to be tensors, arrays or numbers; give it a transform that makes them, "
                "such as torchvision.transforms.ToTensor() of PIL images, or a collate_fn."
            )
        raise


def split_off_indices(batch: Batch, index_key: str | int | None) -> tuple[Batch, Array | None]:
    """Split a batch into the fields of its examples and their indices, None without an `index_key`."""
    if index_key is None:
        return batch, None
    try:
        if isinstance(batch, Mapping):
            rest: Batch = {key: value for key, value in batch.items() if key != index_key}
            indices = batch[index_key]
        else:
            members = list(batch)
            indices = members.pop(index_key)  # type: ignore[arg-type]
            rest = tuple(members)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"index_key={index_key!r} names no field of the batches ({type(batch).__name__}); name one that each "
            "batch has"
        ) from error
    return rest, as_array(indices)
