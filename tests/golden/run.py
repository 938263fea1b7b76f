"""Attribute three tasks with two checkpoints each, in every stored dtype, and collect every array and score.

`python run.py OUTPUT.npz [PROCESSES]` writes what a run of one or several processes stores. `tests/test_golden.py`
compares it with `expected.npz`, which was written before the package was reorganised.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

DTYPES = ("float32", "float16", "int8")
ROWS, TARGETS, FEATURES = 22, 5, 24
OPTIONS = {"device": "cpu", "proj_dim": FEATURES, "progress": False}
STORED = ("features", "scale", "output", "out_to_loss_grad", "out_to_loss_curvature", "data_hash", "checksum", "done")


def tasks():
    """A model, two checkpoints, training batches and targets of each task, by the task's name."""
    import torch
    from torch import nn

    class NextToken(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.norm, self.head = nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 11)

        def forward(self, input_ids):
            return self.head(torch.tanh(self.norm(self.embedding(input_ids).cumsum(1))))

    generator = torch.Generator().manual_seed(7)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def integers(high, *shape):
        return torch.randint(high, shape, generator=generator)

    def data(rows):
        return {
            "image_classification": (normal(rows, 1, 6, 6), integers(3, rows)),
            "language_modeling": (integers(11, rows, 5), torch.ones(rows, 5, dtype=torch.long)),
            "regression": (normal(rows, 4), normal(rows)),
        }

    models = {
        "image_classification": nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.GroupNorm(2, 4),
            nn.GELU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 3),
        ),
        "language_modeling": NextToken(),
        "regression": nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)),
    }
    train, targets = data(ROWS), data(TARGETS)
    for name, model in models.items():
        own = model.state_dict()
        checkpoints = [{key: 0.3 * normal(*value.shape) for key, value in own.items()} for _ in range(2)]
        yield name, model, checkpoints, list(zip(*(t.split(4) for t in train[name]), strict=True)), [targets[name]]


def run(directory):
    """Store everything under a directory, and return the scores of each way of scoring by name."""
    import torch

    import trak
    import trak.store.table

    # Several chunks, which batches straddle.
    trak.store.table.CHUNK_BYTES = 8 * FEATURES * 4
    torch.set_num_threads(1)
    found = {}
    for name, model, checkpoints, train, targets in tasks():
        for dtype in DTYPES:
            folder = f"{directory}/{name}-{dtype}"
            for scoring, settings in {
                "default": {},
                "identity": {"weighting": "identity", "damping": 0.5},
                "absolute": {"lambda_reg": 0.2, "normalize_checkpoints": False},
            }.items():
                result = trak.attribute(
                    model, name, checkpoints, train, targets, folder, dtype=dtype, **OPTIONS, **settings
                )
                found[f"{name}/{dtype}/{scoring}/scores"] = np.array(result.scores)
                top = result.top(3)
                found[f"{name}/{dtype}/{scoring}/top_indices"] = top.indices
                found[f"{name}/{dtype}/{scoring}/top_scores"] = top.scores
    return found


def arrays(directory):
    """Every array of every store under a directory, by path."""
    import zarr

    found = {}
    for store in sorted(Path(directory).iterdir()):
        group = zarr.open_group(store.absolute(), mode="r")
        for tables in ("checkpoints", "experiments/targets/targets"):
            for model_id in group[tables].group_keys():
                for array, values in group[f"{tables}/{model_id}"].arrays():
                    if array in STORED or array.startswith("gram_"):
                        found[f"{store.name}/{tables}/{model_id}/{array}"] = np.asarray(values[...])
    return found


def collect(output, processes):
    """Run in so many processes on the same stores, and save what the first one found."""
    with tempfile.TemporaryDirectory() as directory:
        stores = Path(directory, "stores")
        stores.mkdir()
        if processes > 1:
            parts = [Path(directory, f"{rank}.npz") for rank in range(processes)]
            workers = [
                subprocess.Popen(
                    [sys.executable, __file__, str(part), "worker", str(stores)],
                    env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(processes)},
                )
                for rank, part in enumerate(parts)
            ]
            failed = [worker.wait() for worker in workers]
            if any(failed):
                raise RuntimeError("a worker failed")
            loaded = [dict(np.load(part)) for part in parts]
            for other in loaded[1:]:
                assert digest(other) == digest(loaded[0])
            scores = loaded[0]
        else:
            scores = run(stores)
        np.savez_compressed(output, machine=np.array(machine()), **arrays(stores), **scores)


def machine():
    """What decides the last bits of floating-point results: the processor, and torch's version and code path."""
    import torch

    processor = Path("/proc/cpuinfo")
    lines = processor.read_text().splitlines() if processor.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{name}; torch {torch.__version__}; {torch.backends.cpu.get_cpu_capability()}; numpy {np.__version__}"


def digest(found):
    """A hash of all arrays by name."""
    state = hashlib.blake2b()
    for name in sorted(found):
        state.update(name.encode() + found[name].tobytes())
    return state.hexdigest()


if __name__ == "__main__":
    if sys.argv[2:3] == ["worker"]:
        np.savez(sys.argv[1], **run(sys.argv[3]))
    else:
        collect(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else 1)
