"""captum: TracInCP, the inner product of two losses' gradients, by the layers whose gradients it has in batches."""

from pathlib import Path

import numpy as np
import torch
from captum.influence import TracInCP
from peer_runners.work import Work, loader, main, warm_up
from torch import nn

BATCH = 64


def load(network: nn.Module, path: str) -> float:
    """The one checkpoint is loaded already; its learning rate is 1."""
    return 1.0


def run(work: Work, scratch: Path) -> np.ndarray:
    network, (train, targets) = work.network(), work.data()
    warm_up(network, train)
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with work.timed("influence"):
        tracin = TracInCP(
            network, loader(train, BATCH), [str(work.checkpoint())], load, layers=layers,
            loss_fn=nn.CrossEntropyLoss(reduction="sum"), sample_wise_grads_per_batch=True,
        )  # fmt: skip
        return torch.as_tensor(tracin.influence(targets)).T.detach().numpy()


if __name__ == "__main__":
    main("captum", run)
