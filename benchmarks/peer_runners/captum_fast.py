"""captum: TracInCPFast, the inner product of two losses' gradients by the weights of the last layer."""

from pathlib import Path

import numpy as np
import torch
from captum.influence import TracInCPFast
from peer_runners.captum import load
from peer_runners.work import Work, loader, main, warm_up
from torch import nn

BATCH = 128


def run(work: Work, scratch: Path) -> np.ndarray:
    network, (train, targets) = work.network(), work.data()
    warm_up(network, train)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with work.timed("influence"):
        tracin = TracInCPFast(
            network, last, loader(train, BATCH), [str(work.checkpoint())], load,
            loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        )  # fmt: skip
        return torch.as_tensor(tracin.influence(targets)).T.detach().numpy()


if __name__ == "__main__":
    main("captum", run)
