"""Batches as users have them: tuples, lists, dicts and Hugging Face's BatchEncoding, nested.

A batch's examples are counted along the first dimension of its tensors; tensors without
dimensions and anything that is no tensor are shared by all its examples.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = Any


def map_tensors(function: Callable[[Tensor], Any], batch: Batch) -> Batch:
    """The batch with `function` applied to its tensors; mappings become dicts, arrays tensors."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, np.ndarray) and batch.dtype.kind in "biufc":
        # torch takes no reversed views.
        return function(torch.as_tensor(batch if min(batch.strides, default=0) >= 0 else batch.copy()))
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, value) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch


def tensors(batch: Batch) -> list[Tensor]:
    """The batch's tensors that have an example dimension, in order."""
    found: list[Tensor] = []
    map_tensors(lambda t: found.append(t) if t.ndim else None, batch)
    return found


def replace_tensors(batch: Batch, replacements: list[Tensor]) -> Batch:
    """The batch with the members of `tensors(batch)` replaced in order."""
    following = iter(replacements)
    return map_tensors(lambda t: next(following) if t.ndim else t, batch)


def size(batch: Batch) -> int:
    """Number of examples.

    Raises:
        TypeError: if the batch holds no tensor with an example dimension.
        ValueError: if its tensors disagree, or it is empty.
    """
    found = tensors(batch)
    if not found:
        raise TypeError(
            f"a batch must hold tensors whose first dimension counts examples, got {type(batch).__name__} without any"
        )
    sizes = {len(t) for t in found}
    if len(sizes) > 1:
        raise ValueError(
            f"the batch's tensors disagree on the number of examples: shapes {[tuple(t.shape) for t in found]}; "
            "the first dimension of each must count examples"
        )
    (count,) = sizes
    if count == 0:
        raise ValueError("the batch is empty: it holds 0 examples; leave empty batches out")
    return count


def take(batch: Batch, start: int, stop: int) -> Batch:
    """Examples start to stop - 1, as a batch."""
    return map_tensors(lambda t: t[start:stop] if t.ndim else t, batch)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""
    return map_tensors(lambda t: t.to(device, non_blocking=True), batch)


def digests(batch: Batch) -> np.ndarray:
    """A 64-bit hash of each example's tensors: uint64 of shape (B,), to tell examples apart."""
    arrays = []
    for t in tensors(batch):
        plain = t.detach().cpu().contiguous()
        kind = f"{plain.dtype}{tuple(plain.shape[1:])}".encode()
        # view() minds the strides of dimensions of one element, contiguous() doesn't.
        flat = plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)
        arrays.append((kind, flat.view(len(plain), -1).numpy() if plain.numel() else None))
    result = np.empty(size(batch), dtype=np.uint64)
    for i in range(len(result)):
        state = hashlib.blake2b(digest_size=8)
        for kind, array in arrays:
            state.update(kind)
            if array is not None:
                state.update(array[i].data)
        result[i] = int.from_bytes(state.digest(), "little")
    return result
