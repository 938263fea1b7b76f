"""The kernels give the numbers of plain torch: on a GPU, or anywhere in Triton's interpreter."""

import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip(
    "triton", reason="needs Triton (pip install triton); without a GPU its interpreter runs the kernels"
)

from trak._utils.counter_random import stream_key  # noqa: E402
from trak.projectors import Rademacher, Sketch  # noqa: E402
from trak.projectors import triton_kernels as kernels  # noqa: E402


@pytest.mark.parametrize("k, width, first", [(5, 24, 0), (64, 1000, 2), (200, 999, 3), (128, 128, 1), (1, 7, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sketch_is_bit_identical(k, width, first, dtype):
    generator = torch.Generator().manual_seed(0)
    block, projector = torch.randn(3, width, generator=generator, dtype=dtype), Sketch(k, 7)
    expected = torch.randn(3, 2 * k, generator=generator, dtype=dtype)
    total = expected.clone().to(DEVICE)
    projector.add(expected, "weight", block, 2, first * k)
    keys = [stream_key(kind, 7, 2, "weight") for kind in ("sketch-blocks", "sketch-offsets")]
    pool = projector._pool(2, block).to(DEVICE)
    kernels.add_sketch(total, block.to(DEVICE), pool, first, *keys, 64 * k + 1)
    assert torch.equal(total.cpu(), expected)


@pytest.mark.parametrize("k, width, first", [(5, 24, 0), (64, 1000, 2), (70, 999, 2**33), (128, 128, 1), (1, 7, 0)])
@pytest.mark.parametrize("examples", [1, 17])
def test_rademacher_is_equal_to_float32(k, width, first, examples):
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(examples, 2 * width, generator=generator)[:, ::2]
    expected = torch.randn(examples, k, generator=generator)
    total = expected.clone().to(DEVICE)
    Rademacher(k, 7).add(expected, "weight", block, 2, first)
    kernels.add_rademacher(total, block.to(DEVICE), stream_key("rademacher", 7, 2, "weight"), first)
    torch.testing.assert_close(total.cpu(), expected, rtol=1e-5, atol=1e-5)
