"""Batches as users have them: tuples, lists, dicts and Hugging Face's BatchEncoding, nested.

A batch's examples are counted along the first dimension of its tensors. A list or tuple of as
many strings or numbers holds one for each example; tensors without
dimensions and anything else are shared by all examples.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = Any


def map_tensors(
    function: Callable[[Tensor], Any], batch: Batch, plain: Callable[[Any], Any] = lambda value: value
) -> Batch:
    """The batch with `function` applied to its tensors and `plain` to what holds none, lists as a whole; mappings
    become dicts, arrays tensors."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, np.ndarray) and batch.dtype.kind in "biufc":
        # torch takes no reversed views.
        return function(torch.as_tensor(batch if min(batch.strides, default=0) >= 0 else batch.copy()))
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value, plain) for key, value in batch.items()}
    if not isinstance(batch, list | tuple) or not any(_holds_tensors(value) for value in batch):
        return plain(batch)
    if hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, value, plain) for value in batch))
    return type(batch)(map_tensors(function, value, plain) for value in batch)


def _holds_tensors(batch: Batch) -> bool:
    if isinstance(batch, Tensor):
        return True
    if isinstance(batch, np.ndarray):
        return batch.dtype.kind in "biufc"
    members = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return any(_holds_tensors(value) for value in members)


def has_plain_fields(batch: Batch) -> bool:
    """Whether a list holds one value for each example other than tensors."""
    count, found = size(batch), list[bool]()
    map_tensors(lambda t: t, batch, lambda value: found.append(_is_per_example(value, count)))
    return any(found)


def _is_per_example(value: Any, count: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and not hasattr(value, "_fields")
        and len(value) == count
        and all(isinstance(one, str | bytes | int | float) for one in value)
    )


def tensors(batch: Batch) -> list[Tensor]:
    """The batch's tensors that have an example dimension, in order."""
    found: list[Tensor] = []
    map_tensors(lambda t: found.append(t) if t.ndim else None, batch)
    return found


def replace_tensors(batch: Batch, replacements: list[Tensor]) -> Batch:
    """The batch with the members of `tensors(batch)` replaced in order."""
    following = iter(replacements)
    return map_tensors(lambda t: next(following) if t.ndim else t, batch)


def describe_batch(batch: Any) -> str:
    """A batch's type, with its length or keys, for messages."""
    if isinstance(batch, Mapping):
        return f"{type(batch).__name__} of {', '.join(map(str, batch)) or 'nothing'}"
    return type(batch).__name__ + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")


def check_tuple(batch: Batch, what: str, form: str) -> Sequence[Any]:
    """The batch, which must be a tuple or list of two members or more."""
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        return batch
    raise ValueError(
        f"a batch for {what} is {form} or a dict of both, got {describe_batch(batch)}; yield such batches, or write a "
        "Task that reads yours"
    )


def size(batch: Batch) -> int:
    """Number of examples, at least 1, on which all tensors must agree."""
    found = tensors(batch)
    if not found:
        raise TypeError(
            f"a batch must hold tensors whose first dimension counts examples, got {type(batch).__name__} without "
            "any; convert arrays and lists to tensors, for instance in the loader's collate_fn"
        )
    sizes = {len(t) for t in found}
    if len(sizes) > 1:
        raise ValueError(
            f"the batch's tensors disagree on the number of examples: shapes {[tuple(t.shape) for t in found]}; the "
            "first dimension of each must count examples; leave out what is not given for each example"
        )
    (count,) = sizes
    if count == 0:
        raise ValueError(
            f"the batch is empty: it holds 0 examples, in tensors of shape {[tuple(t.shape) for t in found]}; leave "
            "empty batches out"
        )
    return count


def first_row(mask: Tensor) -> int:
    """The first example of which any value of a bool mask (B, ...) is True."""
    return int(mask.nonzero()[0, 0])


def take(batch: Batch, start: int, stop: int) -> Batch:
    """Examples start to stop - 1, as a batch."""
    count = size(batch)
    return map_tensors(
        lambda t: t[start:stop] if t.ndim else t,
        batch,
        lambda value: value[start:stop] if _is_per_example(value, count) else value,
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`, ready for autograd."""
    return map_tensors(lambda t: (t.clone() if t.is_inference() else t).to(device, non_blocking=True), batch)


def digests(batch: Batch) -> np.ndarray:
    """A 64-bit hash of each example's tensors and plain fields: uint64 of shape (B,), to tell examples apart."""
    count = size(batch)
    # In the batch's order: bytes that all examples share, or rows of bytes, one for each.
    parts: list[bytes | np.ndarray | list[bytes]] = []

    def tensor(t: Tensor) -> None:
        parts.append(f"{t.dtype}{tuple(t.shape[1:])}".encode())
        if t.numel():
            flat = raw_bytes(t)
            parts.append(flat.reshape(count, -1) if t.ndim else flat.tobytes())

    def plain(value: Any) -> None:
        if _is_per_example(value, count):
            # As in a batch of one example, where it can't be told from a list that is shared.
            parts.append([repr([one]).encode() for one in value])
        elif isinstance(value, list | tuple):
            parts.append(repr(list(value)).encode())
        elif isinstance(value, str | bytes | int | float):
            parts.append(repr(value).encode())

    map_tensors(tensor, batch, plain)
    rows = (b"".join(part if isinstance(part, bytes) else part[i] for part in parts) for i in range(count))
    found = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
    return np.frombuffer(found, "<u8").astype(np.uint64)


def combined_digest(digests: np.ndarray) -> str:
    """One hash of many examples' `digests`, however they are batched: 32 hexadecimal digits."""
    return hashlib.blake2b(digests.astype("<u8").tobytes(), digest_size=16).hexdigest()


def raw_bytes(t: Tensor) -> np.ndarray:
    """A tensor's values in order, uint8 (bytes,)."""
    plain = t.detach().cpu().contiguous()
    # view() minds the strides of dimensions of one element, contiguous() doesn't.
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8).numpy()
