"""What this process is among those that torchrun started, if it did."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

PATIENCE = 30.0
"""Seconds without progress of other processes, after which what they should do is done here, too."""
_LOOK = 0.5
_AT_ONCE = 8


def world_size() -> int:
    """Number of processes; 1 outside of torchrun."""
    return torch.distributed.get_world_size() if _initialized() else _environment("WORLD_SIZE", 1)


def rank() -> int:
    """This process's number among them, from 0."""
    return torch.distributed.get_rank() if _initialized() else _environment("RANK", 0)


def local_rank() -> int:
    """Its number among those on this machine, from 0."""
    return _environment("LOCAL_RANK", 0)


def iter_pending(numbers: Sequence[int], undone: Callable[[Sequence[int]], list[int]]) -> Iterator[list[int]]:
    """Which of some numbered jobs this process should do, where processes can't see what others are at: those of its
    share that are not done, and then, as long as the others don't get on, some of theirs: after three times what its
    share took, at most `PATIENCE` seconds, which it also is if there was nothing to do.

    Ends once all are done. It is no harm if two do the same one. `undone` is asked when the jobs that were yielded
    before must be done.
    """
    size, began = world_size(), time.monotonic()
    if share := undone(np.array_split(np.asarray(numbers), size)[rank()].tolist() if size > 1 else numbers):
        yield share
    left, since = undone(numbers), time.monotonic()
    patience = min(PATIENCE, max(1.0, 3 * (since - began))) if share else PATIENCE
    while left:
        if size == 1 or time.monotonic() - since > patience:
            late = left[-_AT_ONCE:]  # from the end, for whoever is slow comes from the other side
            yield late
            left = [number for number in undone(left) if number not in late]
            continue
        time.sleep(_LOOK)
        if len(found := undone(left)) < len(left):
            left, since = found, time.monotonic()


def all_gather_object(value: Any) -> list[Any]:
    """What each rank gives, in their order; returns once all of them have called it."""
    if not _initialized():
        return [value]
    found = [None] * world_size()
    torch.distributed.all_gather_object(found, value)
    return found


def _initialized() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _environment(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else otherwise
