"""kronfluence: influence functions with EK-FAC, at its defaults."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from kronfluence import Analyzer, Task, prepare_model
from peer_runners.work import Work, main, margin, warm_up
from torch import nn

BATCH = 64


class Margins(Task):
    """Trained by cross-entropy; what is measured is -margin, so that a positive score pushes the margin up."""

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> torch.Tensor:
        *inputs, labels = batch
        logits = model(*inputs)
        if sample:
            labels = torch.multinomial(logits.detach().softmax(-1), 1).squeeze(-1)
        return nn.functional.cross_entropy(logits, labels, reduction="sum")

    def compute_measurement(self, batch: Any, model: nn.Module) -> torch.Tensor:
        return -margin(model(*batch[:-1]), batch[-1]).sum()


def run(work: Work, scratch: Path) -> np.ndarray:
    network, (train, targets) = work.network(), work.data()
    warm_up(network, train)
    task = Margins()
    examples, queries = torch.utils.data.TensorDataset(*train), torch.utils.data.TensorDataset(*targets)
    with work.timed("set up", grows=False):
        analyzer = Analyzer(
            "peers", prepare_model(network, task), task, cpu=True, output_dir=str(scratch), disable_tqdm=True
        )
    with work.timed("covariances"):
        analyzer.fit_covariance_matrices("ekfac", examples, per_device_batch_size=BATCH)
    with work.timed("eigendecompositions", grows=False):
        analyzer.perform_eigendecomposition("ekfac")
    with work.timed("eigenvalues"):
        analyzer.fit_lambda_matrices("ekfac", examples, per_device_batch_size=BATCH)
    with work.timed("scores"):
        analyzer.compute_pairwise_scores(
            "scores", "ekfac", queries, examples, per_device_query_batch_size=len(queries),
            per_device_train_batch_size=BATCH,
        )  # fmt: skip
    return analyzer.load_pairwise_scores("scores")["all_modules"].T.numpy()


if __name__ == "__main__":
    main("kronfluence", run)
