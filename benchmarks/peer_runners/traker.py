"""traker: TRAKer with its dense projection for CPUs, drawn anew for every batch, so that large batches are best."""

from pathlib import Path

import numpy as np
import torch
from peer_runners.work import Work, batches, main, warm_up

from trak import TRAKer
from trak.projectors import BasicProjector, ProjectionType

BATCH = 128


def run(work: Work, scratch: Path) -> np.ndarray:
    network, (train, targets) = work.network(), work.data()
    warm_up(network, train)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    size = sum(p.numel() for p in network.parameters())

    def each(data: tuple) -> list:
        if not work.is_text:
            return batches(data, BATCH)
        return batches((data[0], torch.zeros_like(data[0]), *data[1:]), BATCH)

    # A projection of a single block, as up to 100 features are by default, is gone when targets are scored.
    projector = BasicProjector(size, work.k, 0, ProjectionType.normal, "cpu", work.k // 2) if work.k <= 100 else None
    with work.timed("set up", grows=False):
        # Its projection of p numbers has variance k, and its features are divided by √p.
        traker = TRAKer(
            network, work.case.task, work.examples, str(scratch), device="cpu", proj_dim=work.k,
            projector=projector,
            use_half_precision=False, lambda_reg=work.penalty * work.k / size,
        )  # fmt: skip
        traker.load_checkpoint(state, 0)
    with work.timed("featurize"):
        for batch in each(train):
            traker.featurize(batch, num_samples=len(batch[-1]))
    with work.timed("finalize", grows=False):
        traker.finalize_features()
    with work.timed("score", grows=False):
        traker.start_scoring_checkpoint("targets", state, 0, len(targets[-1]))
        for batch in each(targets):
            traker.score(batch, num_samples=len(batch[-1]))
        return np.array(traker.finalize_scores("targets"))


if __name__ == "__main__":
    main("traker", run)
