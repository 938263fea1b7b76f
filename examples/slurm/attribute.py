"""Attribution as a job array: `prepare`, then `featurize` by many tasks, then `finalize`, then `score`.

Each command may be repeated, requeued or run twice at once: what is stored is not done again, and what another task is
at is left to it. The data are scikit-learn's digits, the model is small; put yours in their place.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import trak

TRAIN, TARGETS, CHECKPOINTS, EPOCHS = 1000, 40, 2, 5
BATCH = 50
PER_TASK = 5 * BATCH  # whole batches, so that they are the same for any number of tasks
EXPERIMENT = "targets"


def load() -> TensorDataset:
    """Images (N, 64) and labels (N,), in one order for all tasks."""
    images, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images, dtype=torch.float32) / 8 - 1, torch.tensor(labels, dtype=torch.int64))


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def prepare(output: Path) -> None:
    """Train the checkpoints."""
    images, labels = load()[:TRAIN]
    output.mkdir(parents=True, exist_ok=True)
    for seed in range(CHECKPOINTS):
        torch.manual_seed(seed)
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(EPOCHS):
            for batch in torch.randperm(TRAIN).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
        torch.save(model.state_dict(), output / f"{seed}.pt")


def make_traker(output: Path, store: str | None) -> trak.TRAKer:
    return trak.TRAKer(make_model(), "image_classification", TRAIN, store or output / "store", proj_dim=256)


def featurize(output: Path, store: str | None, task: int) -> None:
    """One task's share of the training set, for every checkpoint."""
    first, last = task * PER_TASK, min((task + 1) * PER_TASK, TRAIN)
    if not 0 <= first < TRAIN:
        raise SystemExit(f"--task must be from 0 to {(TRAIN - 1) // PER_TASK}, got {task}")
    traker = make_traker(output, store)
    with traker.overlapped():
        for model_id in range(CHECKPOINTS):
            traker.load_checkpoint(output / f"{model_id}.pt", model_id)
            start = first
            for batch in DataLoader(Subset(load(), range(first, last)), batch_size=BATCH):
                traker.featurize(batch, inds=np.arange(start, start + len(batch[0])))
                start += len(batch[0])


def finalize(output: Path, store: str | None) -> None:
    make_traker(output, store).finalize_features(range(CHECKPOINTS))


def score(output: Path, store: str | None) -> None:
    traker = make_traker(output, store)
    targets = Subset(load(), range(TRAIN, TRAIN + TARGETS))
    for model_id in range(CHECKPOINTS):
        traker.start_scoring_checkpoint(EXPERIMENT, output / f"{model_id}.pt", model_id, TARGETS)
        for batch in DataLoader(targets, batch_size=BATCH):
            traker.score(batch)
    traker.finalize_scores(EXPERIMENT)
    print(traker.attribution(EXPERIMENT).top(3))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("prepare", "featurize", "finalize", "score"))
    parser.add_argument("--output", type=Path, required=True, help="a directory that all tasks see")
    parser.add_argument("--store", help="where features go, by default OUTPUT/store; a URL for an object store")
    parser.add_argument("--task", type=int, default=0, help="number of the task in the job array")
    chosen = parser.parse_args(arguments)
    if chosen.command == "prepare":
        prepare(chosen.output)
    elif chosen.command == "featurize":
        featurize(chosen.output, chosen.store, chosen.task)
    else:
        {"finalize": finalize, "score": score}[chosen.command](chosen.output, chosen.store)


if __name__ == "__main__":
    main()
