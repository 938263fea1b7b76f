"""Batches that can be loaded by their number, without those before them."""

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from trak._utils.typing import Array
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.indices import split_off_indices
from trak.inputs.loaders import is_sequential


@dataclass(frozen=True)
class NumberedBatches:
    """A loader's batches by number, any of which can be loaded without the others."""

    indices: list[Array]
    """The indices of the examples of each batch."""
    load: Callable[[Iterator[int]], Iterable[Batch]]
    """Loads the batches of the given numbers, in order."""


def numbered_batches(
    loader: Iterable[Any], examples: int, index_key: str | int | None = None
) -> NumberedBatches | None:
    """The batches of a list, or of a DataLoader that reads a data set of `examples` examples in order, `batch_size` at
    a time; None for any other loader."""
    if isinstance(loader, list | tuple):
        split = [split_off_indices(batch, index_key) for batch in loader]
        starts = np.cumsum([0, *(batches.size(batch) for batch, _ in split)])
        if starts[-1] != examples:
            return None
        plain = [np.arange(start, stop) for start, stop in pairwise(starts)]
        indices = [own if given is None else given for own, (_, given) in zip(plain, split, strict=True)]
        return NumberedBatches(indices, lambda numbers: (split[number][0] for number in numbers))
    if index_key is None and _reads_all_in_order(loader, examples) and (size := loader.batch_size):
        rows = [np.arange(start, min(start + size, examples)) for start in range(0, examples, size)]
        return NumberedBatches(rows, lambda numbers: _with_batches(loader, (rows[n].tolist() for n in numbers)))
    return None


def _reads_all_in_order(loader: Iterable[Any], examples: int) -> TypeGuard[DataLoader[Any]]:
    return (
        isinstance(loader, DataLoader)
        and type(loader) is DataLoader
        and is_sequential(loader)
        and getattr(loader, "in_order", True)
        and not isinstance(loader.dataset, IterableDataset)
        and isinstance(loader.dataset, Sized)
        and len(loader.dataset) == examples
    )


def _with_batches(loader: DataLoader[Any], rows: Iterator[list[int]]) -> DataLoader[Any]:
    """The same loader with other batches."""
    return DataLoader(
        loader.dataset,
        batch_sampler=rows,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )
