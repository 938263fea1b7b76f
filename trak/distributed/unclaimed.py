"""Loaders that leave out what other processes do."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from trak._utils.ranks import iter_pending
from trak.inputs.batches import Batch
from trak.inputs.indices import iter_with_indices
from trak.inputs.numbered_batches import NumberedBatches, numbered_batches
from trak.store import RowLocks, Table

Indexed = Iterator[tuple[Batch, np.ndarray | None]]


def iter_unclaimed(
    loader: Iterable[Batch],
    index_key: str | int | None,
    table: Table,
    locks: RowLocks,
    settle: Callable[[], object],
    skipped: Callable[[int], None] = lambda count: None,
) -> Indexed:
    """The batches of a loader that this process may have to featurize, each with its examples' indices.

    Of a list, and of a DataLoader that goes through a data set in order, only batches are loaded that are not done and
    that no other process has claimed; they are claimed here. The first is always among them, for what is checked by it,
    and last come those that were claimed by others and are not done yet. Where there are no claims, a process begins
    with its share of them, and waits for the others. Any other loader is read as a whole, with None for indices.

    Args:
        loader: yields batches in the same order in every process.
        index_key: field of a batch that says which examples they are.
        table: of the loader's examples.
        claims: of the table's store.
        settle: returns once everything yielded before is done.
        skipped: told the number of examples in batches that are left out.
    """
    known = numbered_batches(loader, len(table), index_key)
    if known is None:
        yield from iter_with_indices(loader, index_key)
    elif locks.exclude:
        under_way = deque[np.ndarray]()
        for batch in known.load(_claimed(known.indices, table, locks, under_way, skipped)):
            yield batch, under_way.popleft()
    else:
        yield from _in_turns(known, table, settle, skipped)


def _in_turns(
    known: NumberedBatches, table: Table, settle: Callable[[], object], skipped: Callable[[int], None]
) -> Indexed:
    indices, loaded = known.indices, 0

    def undone(numbers: Sequence[int]) -> list[int]:
        settle()
        if not numbers:
            return []
        done = table.is_done(np.concatenate([indices[number] for number in numbers]))
        ends = np.cumsum([len(indices[number]) for number in numbers])[:-1]
        return [number for number, rows in zip(numbers, np.split(done, ends), strict=True) if not rows.all()]

    everything = range(len(indices))
    if not undone(everything[:1]):
        yield next(iter(known.load(iter([0])))), indices[0]
        loaded += len(indices[0])
    for share in iter_pending(everything, undone):
        for number, batch in zip(share, known.load(iter(share)), strict=True):
            yield batch, indices[number]
            loaded += len(indices[number])
    skipped(len(table) - loaded)


def _claimed(
    ranges: list[np.ndarray],
    table: Table,
    locks: RowLocks,
    under_way: deque[np.ndarray],
    skipped: Callable[[int], None],
) -> Iterator[int]:
    name, left = table.group.path, deque[int]()

    def done(number: int) -> bool:
        table.refresh()
        return bool(table.is_done(ranges[number]).all())

    for number, rows in enumerate(ranges):
        while left and done(left[0]):
            skipped(len(ranges[left.popleft()]))
        if number > 0:
            if not locks.take(name, rows):
                left.append(number)
                continue
            if done(number):
                locks.release(name, rows)
                skipped(len(rows))
                continue
        under_way.append(rows)
        yield number
    for number in left:
        if done(number):
            skipped(len(ranges[number]))
        else:
            under_way.append(ranges[number])
            yield number
