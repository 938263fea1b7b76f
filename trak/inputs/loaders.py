"""Checks of loaders: a known order, repeated passes, the number of examples."""

import warnings
from collections.abc import Iterable, Mapping, Sized
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset, SequentialSampler

from trak._utils.validation import is_integer
from trak.inputs import batches
from trak.inputs.batches import Batch

_READ_TWICE = 4
"""Examples; a random flip leaves one of them as it is half of the time."""


def count_examples(
    loader: Iterable[Batch], what: str, given: int | None = None, index_key: str | int | None = None
) -> int:
    """Number of examples of a loader, at least 1, or the number that the user gave; checked by `check_loader`."""
    check_loader(loader, what, index_key)
    if given is None and isinstance(loader, DataLoader) and hasattr(loader.dataset, "__len__"):
        given = len(loader.dataset)
        size = loader.batch_size
        if loader.drop_last and size and given % size:
            raise ValueError(
                f"{what} is a DataLoader with drop_last=True, which would leave out {given % size} of {given} "
                "examples; use drop_last=False"
            )
    if given is None:
        given = sum(batches.size(batch) for batch in loader)
    if not is_integer(given):
        raise TypeError(
            f"the number of examples of {what} must be an integer, got {given!r}; give one, or leave it out"
        )
    if given < 1:
        raise ValueError(f"{what} yields no examples; pass at least one batch")
    return given


def check_loader(loader: Iterable[Any], what: str, index_key: str | int | None = None) -> None:
    """Raise a TypeError or ValueError that says what to do, if a loader can't be read in a known order more than once;
    with an `index_key`, the field of a batch that says which examples they are, any order will do."""
    is_iterable = hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
    if isinstance(loader, str | Tensor | np.ndarray | Mapping) or not is_iterable:
        raise TypeError(
            f"{what} must yield batches, got {type(loader).__name__}; pass a DataLoader, or a list of batches such as "
            "[(inputs, labels)]"
        )
    are_tensors = type(loader) in (list, tuple) and all(isinstance(t, Tensor) for t in loader)
    if are_tensors and len({(t.ndim, t.dtype) for t in loader}) > 1:  # which batches of one loader have in common
        raise TypeError(
            f"{what} is a {type(loader).__name__} of tensors of shapes {[tuple(t.shape) for t in loader]}, each of "
            f"which would be a batch; pass DataLoader(TensorDataset(*{what}), batch_size=100) if they belong together"
        )
    if iter(loader) is loader:
        raise TypeError(
            f"{what} is an iterator, which can be read only once; pass something that can be iterated again for every "
            "checkpoint, such as a DataLoader or a list of batches"
        )
    if isinstance(loader, Dataset):
        raise TypeError(
            f"{what} is a Dataset, which yields single examples; wrap it: DataLoader({what}, batch_size=100), with a "
            "collate_fn that pads where rows have different lengths, such as DataCollatorWithPadding(tokenizer)"
        )
    if not isinstance(loader, DataLoader):
        return
    samplers = (loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    if any(isinstance(sampler, DistributedSampler) for sampler in samplers):
        raise ValueError(
            f"{what} is a DataLoader with a DistributedSampler, which hides most examples from this process; pass the "
            "plain DataLoader, without sampler and shuffle=False, in every process: they share the work by themselves"
        )
    if index_key is None and not is_sequential(loader):
        raise ValueError(
            f"{what} is a DataLoader with its own order of examples (shuffle=True or a sampler), so a row could "
            "not be told which example it is; use shuffle=False, or, with trak.attribute, let each batch carry the "
            "examples' indices and name that field in index_key"
        )


def warn_if_random(loader: Any, what: str) -> None:
    """Warn if a DataLoader's first examples are other data when they are read a second time.

    One with workers is not looked at: data sets that open their files at first use must not do so here.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return
    dataset = loader.dataset
    if loader.num_workers or loader.batch_size is None or not isinstance(dataset, Sized):
        return
    try:
        rows = range(min(_READ_TWICE, len(dataset)))
        first, second = (batches.digests(loader.collate_fn([dataset[i] for i in rows])) for _ in range(2))
    except Exception:  # whatever is wrong with the data is said where the batch is used, by its number
        return
    if not np.array_equal(first, second):
        warnings.warn(
            f"example {int(np.argmax(first != second))} of {what} is other data when it is read again, as with random "
            "augmentation, so the scores are of one draw of it, and no second run can go on with the store; give the "
            "data the transforms of evaluation",
            stacklevel=3,
        )


def sequential_loader(loader: Any, what: str, batch_size: int | None = None) -> DataLoader[Any]:
    """A DataLoader over the map-style data set of one that trains: all of it, in order, collated in the same way."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        got = f"a DataLoader over {type(loader.dataset).__name__}" if isinstance(loader, DataLoader) else ""
        raise TypeError(
            f"{what} is {got or type(loader).__name__}, which can't be read in another order; it must be a DataLoader "
            "over a map-style data set. Call trak.attribute with a loader that yields the examples in order"
        )
    size = batch_size or loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    if not size:
        raise ValueError(f"{what} has a batch sampler of its own and no batch_size; pass batch_size=32")
    return DataLoader(loader.dataset, size, num_workers=loader.num_workers, collate_fn=loader.collate_fn)


def is_sequential(loader: DataLoader[Any]) -> bool:
    """Whether a DataLoader yields its data set's examples in order."""
    if isinstance(loader.dataset, IterableDataset):
        return True
    inner = loader.batch_sampler
    if inner is None:
        return isinstance(loader.sampler, SequentialSampler)
    return type(inner) is BatchSampler and isinstance(inner.sampler, SequentialSampler)
