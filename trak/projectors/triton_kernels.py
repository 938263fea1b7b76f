"""Projections on a GPU, their random numbers made where they are used; needs Triton.

The numbers are those of `trak._utils.counter_random`: nothing random is ever stored, or read back.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

_GOLDEN = tl.constexpr(-7046029254386353131)  # 0x9E3779B97F4A7C15
_MIX_1 = tl.constexpr(-4658895280553007687)  # 0xBF58476D1CE4E5B9
_MIX_2 = tl.constexpr(-7723592293110705685)  # 0x94D049BB133111EB


@triton.jit
def _random_words(key, counters):  # type: ignore[no-untyped-def]
    """`hashing.random_words`; shifts are logical."""
    x = (counters + 1) * _GOLDEN + key
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


@triton.jit
def _sketch(  # type: ignore[no-untyped-def]
    total,
    block,
    pool,
    first,
    width,
    block_stride,
    total_stride,
    row_key,
    offset_key,
    k,
    starts,
    columns_each: tl.constexpr,
):
    row, columns = tl.program_id(0).to(tl.int64), tl.program_id(1) * columns_each + tl.arange(0, columns_each)
    is_column = columns < k
    low_place = total + row * total_stride + columns
    low = tl.load(low_place, mask=is_column, other=0.0)
    high = tl.load(low_place + k, mask=is_column, other=0.0)
    zero = tl.zeros((1,), tl.int64)
    for b in range(tl.cdiv(width, k)):
        word = _random_words(row_key, zero + first + b)
        start = _random_words(offset_key, zero + first + b)
        shift = ((word >> 1) & 0x3FFFFFFFFFFFFFFF) % k
        offset = (start & 0x7FFFFFFFFFFFFFFF) % starts
        wrapped = columns < shift
        within = tl.where(wrapped, columns - shift + k, columns - shift)
        place = within + (zero + b) * k
        is_there = is_column & (place < width)
        value = tl.load(block + row * block_stride + place, mask=is_there, other=0.0)
        value = (
            value * tl.load(pool + offset + within, mask=is_column, other=0.0) * ((word & 1) * 2 - 1).to(value.dtype)
        )
        high += tl.where(wrapped, value, 0.0)
        low += tl.where(wrapped, 0.0, value)
    tl.store(low_place, low, mask=is_column)
    tl.store(low_place + k, high, mask=is_column)


def add_sketch(
    total: Tensor, block: Tensor, pool: Tensor, first: int, row_key: int, offset_key: int, starts: int
) -> None:
    """What `Sketch.add` does, bit for bit, for a block (b, width) from block number `first` of the parameter on."""
    if not block.numel():
        return
    k, columns = total.shape[1] // 2, 128
    block = block if block.stride(1) == 1 else block.contiguous()
    _sketch[(len(block), triton.cdiv(k, columns))](
        total, block, pool, first, block.shape[1], block.stride(0), total.stride(0), row_key, offset_key, k, starts,
        columns_each=columns,
    )  # fmt: skip


@triton.jit
def _rademacher(  # type: ignore[no-untyped-def]
    total, block, key, first, rows, width, k, per_row, scale, block_stride, total_stride,
    rows_each: tl.constexpr, columns_each: tl.constexpr, depth_each: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * rows_each + tl.arange(0, rows_each)).to(tl.int64)
    column = tl.program_id(1) * columns_each + tl.arange(0, columns_each)
    word_column = tl.program_id(1) * (columns_each // 32) + tl.arange(0, columns_each // 32)
    product = tl.zeros((rows_each, columns_each), tl.float32)
    for start in range(0, width, depth_each):
        depth = start + tl.arange(0, depth_each)
        is_there = (row < rows)[:, None] & (depth < width)[None, :]
        values = tl.load(block + row[:, None] * block_stride + depth[None, :], mask=is_there, other=0.0)
        words = _random_words(key, (first + depth).to(tl.int64)[:, None] * per_row + word_column[None, :])
        bits = (words[:, :, None] >> tl.arange(0, 32).to(tl.int64)[None, None, :]) & 1
        signs = (tl.reshape(bits, (depth_each, columns_each)) * 2 - 1).to(tl.float32)
        product += tl.dot(values.to(tl.float32), signs, input_precision="ieee")
    place = total + row[:, None] * total_stride + column[None, :]
    is_there = (row < rows)[:, None] & (column < k)[None, :]
    tl.store(place, tl.load(place, mask=is_there, other=0.0) + product * scale, mask=is_there)


def add_rademacher(total: Tensor, block: Tensor, key: int, first: int) -> None:
    """What `Rademacher.add` does, in float32: total (b, k) += block (b, width) · signs / √k."""
    if not block.numel():
        return
    (examples, width), k = block.shape, total.shape[1]
    block = block if block.stride(1) == 1 else block.contiguous()
    grid = (triton.cdiv(examples, 16), triton.cdiv(k, 64))
    _rademacher[grid](
        total, block, key, first, examples, width, k, math.ceil(k / 32), 1 / math.sqrt(k), block.stride(0),
        total.stride(0), rows_each=16, columns_each=64, depth_each=32,
    )  # fmt: skip
