"""bergson: projected gradients of the losses by the linear layers (InMemoryCollector), and their inner products."""

import math
from pathlib import Path

import numpy as np
import torch
from bergson import GradientProcessor, IndexConfig, InMemoryCollector
from datasets import Dataset
from peer_runners.work import Work, batches, main, warm_up
from torch import nn

BATCH = 32


def run(work: Work, scratch: Path) -> np.ndarray:
    network, (train, targets) = work.network(), work.data()
    warm_up(network, train)
    model = network.model if work.is_text else network
    if not hasattr(model, "device"):
        model.device = torch.device("cpu")
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if work.is_text:  # only layers that see a sequence
        names = [name for name in names if ".encoder." in name]
    side = math.isqrt(work.k // len(names))

    def collect(data: tuple) -> torch.Tensor:
        rows = Dataset.from_dict({"row": list(range(len(data[-1])))})
        collector = InMemoryCollector(
            model=model, data=rows, cfg=IndexConfig(run_path=str(scratch), projection_dim=side),
            processor=GradientProcessor(projection_dim=side), target_modules=set(names),
        )  # fmt: skip
        for indices, batch in zip(torch.arange(len(rows)).split(BATCH), batches(data, BATCH), strict=True):
            with collector.with_batch(None):
                losses = nn.functional.cross_entropy(network(*batch[:-1]), batch[-1], reduction="none")
                losses.sum().backward()
                model.zero_grad()
            collector.process_batch(indices.tolist(), losses=losses)
        collector.teardown()
        return torch.cat([collector.gradients[name].float() for name in names], dim=1)

    with work.timed("collect"):
        features = collect(train)
    with work.timed("score", grows=False):
        return (features @ collect(targets).T).numpy()


if __name__ == "__main__":
    main("bergson", run)
