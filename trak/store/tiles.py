"""Matrices cut into tiles, and who computes which tile."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from trak._utils.typing import Array

TileBlock = tuple[slice, slice, Array]
"""Rows, columns, and the values there."""


@dataclass(frozen=True)
class Tiles:
    """How a matrix is computed: tiles that do not overlap, numbered column by column."""

    count: int
    shape: tuple[int, int]
    """Rows and columns of a tile; the last ones may have fewer."""
    compute: Callable[[int], Iterator[TileBlock]]
    """Yields the tile of a number, a block of it at a time."""


class Executor(Protocol):
    """Decides which process does which of some numbered jobs; see `trak.distributed` for implementations."""

    def run(
        self, name: str, numbers: Sequence[int], is_done: Callable[[int], bool], compute: Callable[[int], object]
    ) -> None:
        """Return once the jobs are done, each by some process.

        Args:
            name: of the jobs, the same in every process that shares them.
            numbers: of the jobs.
            is_done: whether a job is done, by whichever process.
            compute: does a job. Two processes may do the same one, with the same result.
        """


class SerialExecutor:
    """Does every job in this process, one after the other."""

    def run(
        self, name: str, numbers: Sequence[int], is_done: Callable[[int], bool], compute: Callable[[int], object]
    ) -> None:
        """Do the jobs that are not done, in order."""
        for number in numbers:
            if not is_done(number):
                compute(number)
