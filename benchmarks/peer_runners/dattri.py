"""dattri: TRAKAttributor with its dense projection for CPUs."""

from pathlib import Path

import numpy as np
import torch
from dattri.algorithm.trak import TRAKAttributor
from dattri.task import AttributionTask
from peer_runners.work import Work, loader, main, margin, warm_up

BATCH = 128


def run(work: Work, scratch: Path) -> np.ndarray:
    network, (train, targets) = work.network(), work.data()
    warm_up(network, train)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    size = sum(p.numel() for p in network.parameters())

    def output(parameters: dict, example: tuple) -> torch.Tensor:
        *inputs, label = (member.unsqueeze(0) for member in example)
        return margin(torch.func.functional_call(network, parameters, tuple(inputs)), label).squeeze()

    def probability(parameters: dict, example: tuple) -> torch.Tensor:
        return torch.sigmoid(output(parameters, example))

    with work.timed("set up", grows=False):
        task = AttributionTask(loss_func=output, model=network, checkpoints=[state])
        attributor = TRAKAttributor(
            task=task, correct_probability_func=probability, device="cpu",
            projector_kwargs={"proj_dim": work.k, "proj_type": "normal"}, regularization=work.penalty / size,
        )  # fmt: skip
    with work.timed("cache"):
        attributor.cache(loader(train, BATCH))
    with work.timed("attribute", grows=False):
        return attributor.attribute(loader(targets, BATCH)).detach().numpy()


if __name__ == "__main__":
    main("dattri", run)
