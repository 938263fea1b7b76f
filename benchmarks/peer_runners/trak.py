"""This library."""

from pathlib import Path

import numpy as np
from peer_runners.work import Work, batches, main, warm_up

import trak


def run(work: Work, scratch: Path) -> np.ndarray:
    network, (train, targets) = work.network(), work.data()
    warm_up(network, train)
    model, size = network.model if work.is_text else network, work.case.batch_size
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def each(data: tuple) -> list:
        if not work.is_text:
            return batches(data, size)
        return [dict(zip(("input_ids", "attention_mask", "labels"), b, strict=True)) for b in batches(data, size)]

    with work.timed("set up", grows=False):
        traker = trak.TRAKer(
            model, work.case.task, work.examples, scratch, device="cpu", proj_dim=work.k, weighting="identity",
            lambda_reg=work.penalty,
        )  # fmt: skip
        traker.load_checkpoint(state, 0)
    with work.timed("featurize"):
        for batch in each(train):
            traker.featurize(batch)
    with work.timed("finalize", grows=False):
        traker.finalize_features()
    with work.timed("score", grows=False):
        traker.start_scoring_checkpoint("targets", state, 0, len(targets[-1]))
        for batch in each(targets):
            traker.score(batch)
        return np.array(traker.finalize_scores("targets"))


if __name__ == "__main__":
    main("trak-attribution", run)
