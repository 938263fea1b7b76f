"""What this process is among those that torchrun started, if it did."""

import os
from typing import Any

import torch


def world_size() -> int:
    """Number of processes; 1 outside of torchrun."""
    return torch.distributed.get_world_size() if _initialized() else _environment("WORLD_SIZE", 1)


def rank() -> int:
    """This process's number among them, from 0."""
    return torch.distributed.get_rank() if _initialized() else _environment("RANK", 0)


def local_rank() -> int:
    """Its number among those on this machine, from 0."""
    return _environment("LOCAL_RANK", 0)


def from_every_rank(value: Any) -> list[Any]:
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
