"""Counter-based random numbers: the same on every device, in every process and batch order.

A number is a pure function of a 64-bit key and a counter, never of a generator's state. The
mixing function is the finalizer of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, figure 17).
"""

import hashlib
import math

import torch
from torch import Tensor

# As signed integers, which wrap alike.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def stream_key(*parts: object) -> int:
    """A signed 64-bit key for the stream named by `parts`; different parts give unrelated streams."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def random_words(key: int, counters: Tensor) -> Tensor:
    """One 64-bit word per counter (int64 in, int64 out, same shape); int64 arithmetic wraps."""
    x = (counters + 1) * _GOLDEN + key
    x = (x ^ _logical_shift(x, 30)) * _MIX_1
    x = (x ^ _logical_shift(x, 27)) * _MIX_2
    return x ^ _logical_shift(x, 31)


def random_signs(key: int, rows: Tensor, columns: int) -> Tensor:
    """Rademacher entries in {-1, +1}: float32 of shape (len(rows), columns), 32 signs a word."""
    per_row = math.ceil(columns / 32)
    counters = rows[:, None] * per_row + torch.arange(per_row, device=rows.device)
    bits = random_words(key, counters)[:, :, None] >> torch.arange(min(32, columns), device=rows.device)
    return ((bits & 1).to(torch.float32).flatten(1)[:, :columns] * 2).sub_(1)


def random_normals(key: int, rows: Tensor, columns: int) -> Tensor:
    """Standard normal entries, float32 of shape (len(rows), columns), by Box & Muller (1958).

    Computed in float64 and rounded once, so that devices whose logarithms differ in the last
    bit agree after rounding.
    """
    per_row = math.ceil(columns / 2)
    words = random_words(key, rows[:, None] * per_row + torch.arange(per_row, device=rows.device))
    uniform = (_logical_shift(words, 32).to(torch.float64) + 0.5) / 2**32
    angle = (words & 0xFFFFFFFF).to(torch.float64) * (2 * math.pi / 2**32)
    radius = torch.sqrt(-2 * torch.log(uniform))
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.flatten(1)[:, :columns].to(torch.float32)
