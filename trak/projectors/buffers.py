"""Memory for a block of gradients, used again for the next one.

Fresh memory costs more than what is done with it: the system clears every page at its first touch.
"""

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

_buffers = threading.local()


def reusable_buffer(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return uninitialized memory of the type and on the device of `like`, valid until this thread's next call."""
    if like.device.type != "cpu":
        return like.new_empty(shape)  # such devices keep their memory themselves
    held: dict[str, Tensor] = vars(_buffers)
    numel = math.prod(shape)
    key = str(like.dtype)
    if key not in held or held[key].numel() < numel:
        held[key] = torch.empty(numel, dtype=like.dtype)
    return held[key][:numel].view(*shape)
