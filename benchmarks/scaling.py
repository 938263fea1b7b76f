"""How cost grows with the number of examples and of parameters."""

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import trak
from trak.gradients import HooksEngine, differentiable, featurize
from trak.projectors import Sketch
from trak.tasks import make_task


def exponent(work: str, sizes: Sequence[float], run: Callable[[float], float]) -> dict[str, Any]:
    """A row of the table: slope of log(seconds) over log(size), by least squares over medians of three."""
    run(sizes[0])
    seconds = [float(np.median([run(size) for _ in range(3)])) for size in sizes]
    slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    last = float(np.log(seconds[-1] / seconds[-2]) / np.log(sizes[-1] / sizes[-2]))
    return {
        "work": work, "figure": "exponent of seconds (log-log fit)", "median": slope, "lowest": min(slope, last),
        "highest": max(slope, last), "goal": 1.05, "seconds": seconds[-1],
    }  # fmt: skip


def attributing(n: float) -> float:
    """Seconds of attributing 10 targets to n examples, store and top-10 included."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    x, y = torch.randn(int(n), 64), torch.randint(10, (int(n),))
    batches = list(zip(x.split(500), y.split(500), strict=True))
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        attribution = trak.attribute(
            model, "image_classification", model.state_dict(), batches, [(x[:10], y[:10])], directory, proj_dim=512,
            progress=False,
        )  # fmt: skip
        attribution.top(10)
        return time.perf_counter() - start


def featurizing(p: float) -> float:
    """Seconds of featurizing 8 examples by a linear layer of p parameters, after one batch that warms up."""
    torch.manual_seed(0)
    width = round(p**0.5)
    model, task = nn.Linear(width, width, bias=False).eval(), make_task("image_classification")
    batch = torch.randn(8, width) / width**0.5, torch.randint(width, (8,))
    engine, projector = HooksEngine(model, task, ["weight"]), Sketch(4096)
    projector.bind({"weight": model.weight.shape})
    for _ in range(2):
        start = time.perf_counter()
        with differentiable(model, ["weight"]):
            featurize(engine, projector, batch, 0, 2**40)
    return time.perf_counter() - start


def growing() -> list[dict[str, Any]]:
    return [
        exponent("attributing n = 10³ … 10⁵ examples", [1e3, 1e4, 1e5], attributing),
        exponent("featurizing by p = 10⁵ … 10⁸ parameters", [1e5, 1e6, 1e7, 1e8], featurizing),
    ]
