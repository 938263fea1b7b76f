"""Loaders that leave out what other processes do."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from trak.batches import Batch
from trak.loaders import knows_its_batches
from trak.store import Claims, Table


def dealt(
    loader: Iterable[Batch], table: Table, claims: Claims, skipped: Callable[[int], None] = lambda count: None
) -> Iterator[tuple[Batch, np.ndarray | None]]:
    """The batches of a loader that this process may have to featurize, each with its examples' indices.

    From a DataLoader that goes through a data set in order, only batches are loaded that are not done and that no other
    process has claimed; they are claimed here. The first is always among them, for what is checked by it, and last come
    those that were claimed by others and are not done yet. Any other loader is read as a whole, with None for indices.

    Args:
        loader: yields batches in the same order in every process.
        table: of the loader's examples.
        claims: of the table's store.
        skipped: told the number of examples in batches that are left out.
    """
    if not knows_its_batches(loader, len(table)):
        yield from ((batch, None) for batch in loader)
        return
    n, size = len(table), loader.batch_size
    ranges = [np.arange(start, min(start + size, n)) for start in range(0, n, size)]
    under_way: deque[np.ndarray] = deque()
    numbers = _chosen(ranges, table, claims, under_way, skipped)
    for batch in _with_batches(loader, numbers):
        yield batch, under_way.popleft()


def _chosen(
    ranges: list[np.ndarray],
    table: Table,
    claims: Claims,
    under_way: deque[np.ndarray],
    skipped: Callable[[int], None],
) -> Iterator[list[int]]:
    name, left = table.group.path, deque[np.ndarray]()

    def done(rows: np.ndarray) -> bool:
        table.refresh()
        return bool(table.is_done(rows).all())

    for rows in ranges:
        while left and done(left[0]):
            skipped(len(left.popleft()))
        if rows[0] > 0:
            if not claims.take(name, rows):
                left.append(rows)
                continue
            if done(rows):
                claims.release(name, rows)
                skipped(len(rows))
                continue
        under_way.append(rows)
        yield rows.tolist()
    for rows in left:
        if done(rows):
            skipped(len(rows))
        else:
            under_way.append(rows)
            yield rows.tolist()


def _with_batches(loader: DataLoader[Any], numbers: Iterator[list[int]]) -> DataLoader[Any]:
    """The same loader with other batches."""
    return DataLoader(
        loader.dataset,
        batch_sampler=numbers,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )
