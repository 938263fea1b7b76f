"""Loaders as users have them: read in a known order, as often as needed, and how many examples they hold."""

from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler

from trak import batches
from trak.batches import Batch


def count_examples(
    loader: Iterable[Batch], what: str, given: int | None = None, index_key: str | int | None = None
) -> int:
    """Number of examples of a loader.

    Args:
        loader: yields batches in the same order on every pass.
        what: what the user calls it.
        given: the number, if the user gave it.
        index_key: field of a batch that says which examples they are; any order will do then.

    Raises:
        TypeError, ValueError: as `check_loader`.
        ValueError: if there are none.
    """
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
    if given < 1:
        raise ValueError(f"{what} yields no examples")
    return given


def check_loader(loader: Iterable[Any], what: str, index_key: str | int | None = None) -> None:
    """Raise a TypeError or ValueError that says what to do, if a loader can't be read in a known order more than once;
    arguments as for `count_examples`."""
    if iter(loader) is loader:
        raise TypeError(
            f"{what} is an iterator, which can be read only once; pass something that can be iterated again for every "
            "checkpoint, such as a DataLoader or a list of batches"
        )
    if isinstance(loader, torch.utils.data.Dataset):
        raise TypeError(
            f"{what} is a Dataset, which yields single examples; wrap it: DataLoader({what}, batch_size=100)"
        )
    if isinstance(loader, DataLoader) and _is_sharded(loader):
        raise ValueError(
            f"{what} is a DataLoader with a DistributedSampler, which hides most examples from this process; pass the "
            "plain DataLoader, without sampler and shuffle=False, in every process: they share the work by themselves"
        )
    if isinstance(loader, DataLoader) and index_key is None and not _in_order(loader):
        raise ValueError(
            f"{what} is a DataLoader with its own order of examples (shuffle=True or a sampler), so a row could "
            "not be told which example it is; use shuffle=False, or, with trak.attribute, let each batch carry the "
            "examples' indices and name that field in index_key"
        )


def _in_order(loader: DataLoader[Any]) -> bool:
    if isinstance(loader.dataset, torch.utils.data.IterableDataset):
        return True
    inner = loader.batch_sampler
    if inner is None:
        return isinstance(loader.sampler, SequentialSampler)
    return type(inner) is BatchSampler and isinstance(inner.sampler, SequentialSampler)


def _is_sharded(loader: DataLoader[Any]) -> bool:
    samplers = (loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    return any(isinstance(sampler, DistributedSampler) for sampler in samplers)


def knows_its_batches(loader: Iterable[Any], examples: int) -> TypeGuard[DataLoader[Any]]:
    """Whether a loader goes through a data set of so many examples in order, `batch_size` at a time, so that some of
    its batches can be loaded without the others."""
    return (
        isinstance(loader, DataLoader)
        and type(loader) is DataLoader
        and _in_order(loader)
        and bool(loader.batch_size)
        and getattr(loader, "in_order", True)
        and not isinstance(loader.dataset, torch.utils.data.IterableDataset)
        and len(loader.dataset) == examples
    )
