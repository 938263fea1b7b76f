"""Does it work on this machine?"""

import platform
import time
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn
from zarr.storage import MemoryStore

from trak.attribution.api import attribute
from trak.attribution.traker import best_device
from trak.gradients import choose_engine, differentiable
from trak.projectors import PROJECTORS, Sketch
from trak.tasks import TASKS, make_task
from trak.version import __version__

_OPTIONAL = ("transformers", "pandas", "matplotlib", "scikit-learn", "triton")


def self_check() -> str:
    """Versions, devices, engine and projector, and a toy attribution whose answer is known.

    Raises:
        RuntimeError: if the toy's answer is wrong.
    """
    lines = [f"trak {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    lines.append("  ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "zarr", "tqdm")))
    lines.append("optional: " + "  ".join(f"{name} {_version(name)}" for name in _OPTIONAL))
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines.append(
        f"device: {best_device()} (CPU with {torch.get_num_threads()} threads; CUDA: {', '.join(devices) or 'none'})"
    )
    lines.append(f"tasks: {', '.join(TASKS)}; projectors: {', '.join(PROJECTORS)}, default {Sketch.name}")
    lines.append(_toy())
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _toy() -> str:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 1, 4, 4, generator=generator)
    labels = (images.mean(dim=(1, 2, 3)) > 0).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 2))
    task = make_task("image_classification")
    names = [name for name, _ in model.named_parameters()]
    model.to(best_device())
    with differentiable(model, names):
        engine = choose_engine("auto", model, task, names, (images.to(best_device()), labels.to(best_device()))).name
    start = time.perf_counter()
    found = attribute(
        model,
        task,
        [model.state_dict()],
        train=[(images, labels)],
        targets=[(images[:5], labels[:5])],
        save_dir=MemoryStore(),
        proj_dim=64,
        progress=False,
    )
    first = found.top(1).indices[:, 0].tolist()
    if first != [0, 1, 2, 3, 4]:
        raise RuntimeError(
            f"self-check failed: each of 5 training examples should support itself most, got {first}; install torch, "
            "numpy and zarr in versions that pyproject.toml allows, and report it if that doesn't help"
        )
    seconds = time.perf_counter() - start
    return f"toy: engine {engine}, 5 examples each found themselves among 20 training examples in {seconds:.2f} s: ok"


def test_install(use_fast_jl: bool = False) -> None:
    """Print the self-check, as traker 0.3.2 does. No CUDA extension is needed, so `use_fast_jl` has no effect."""
    print(self_check())


test_install.__test__ = False  # type: ignore[attr-defined]
