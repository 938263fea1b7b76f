"""Attribute a digit classifier's predictions to its training images, and check the scores by retraining.

Real scans of handwritten digits (scikit-learn's, 8 × 8), five small CNNs, a picture, and the linear
datamodeling score of the scores against models retrained on random halves of the training set.
"""

import argparse
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

import trak
from trak.evaluation import lds, retrain

CHECKPOINTS, SUBSETS, SEEDS = 5, 60, 4
TRAIN, TARGETS, EPOCHS = 1000, 100, 12


def load() -> tuple[TensorDataset, TensorDataset]:
    """Training and target digits: images (N, 1, 8, 8) in [-1, 1] and labels (N,), shuffled once."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.tensor(images[order], dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    y = torch.tensor(labels[order], dtype=torch.int64)
    return TensorDataset(x[:TRAIN], y[:TRAIN]), TensorDataset(x[TRAIN:][:TARGETS], y[TRAIN:][:TARGETS])


def make_model() -> nn.Module:
    """A CNN of 19,977 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 29), nn.ReLU(), nn.Linear(29, 10),
    )  # fmt: skip


def train(data: TensorDataset, indices: np.ndarray, seed: int) -> nn.Module:
    """Train on a subset."""
    torch.manual_seed(seed)
    model, (x, y), subset = make_model(), data.tensors, torch.from_numpy(indices)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    batches = [batch for _ in range(EPOCHS) for batch in subset[torch.randperm(len(subset))].split(50)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("examples/output"), help="where results go")
    output: Path = parser.parse_args().output
    data, targets = load()
    start = time.perf_counter()
    models = [train(data, np.arange(TRAIN), seed) for seed in tqdm(range(CHECKPOINTS), desc="training", unit="model")]
    with torch.no_grad():
        probabilities = torch.stack([model(targets.tensors[0]).softmax(-1) for model in models]).mean(0)
    predicted = probabilities.argmax(-1)
    accuracy = (predicted == targets.tensors[1]).double().mean()
    print(f"{CHECKPOINTS} CNNs trained in {time.perf_counter() - start:.0f} s, accuracy on the targets {accuracy:.1%}")

    shutil.rmtree(output / "store", ignore_errors=True)  # of other networks, trained before
    attribution = trak.attribute(
        make_model(),
        task="image_classification",
        checkpoints=[model.state_dict() for model in models],
        train=DataLoader(data, batch_size=100),
        targets=DataLoader(targets, batch_size=100),
        save_dir=output / "store",
    )
    print(attribution)

    labels = data.tensors[1].tolist()
    helpful, harmful = attribution.top(k=5), attribution.top(k=5, bottom=True)
    unsure = probabilities[torch.arange(TARGETS), targets.tensors[1]].argsort()[:5].tolist()
    for target in unsure:
        print(f"\ntarget {target}: a {int(targets.tensors[1][target])}, predicted {int(predicted[target])}")
        for name, found in (("pushed it up", helpful), ("pushed it down", harmful)):
            pairs = zip(found.indices[target], found.scores[target], strict=True)
            print(f"  {name:>14}: " + "  ".join(f"#{i} (a {labels[i]}) {score:+.2g}" for i, score in pairs))
    picture = attribution.show_images(
        data.tensors[0],
        targets.tensors[0],
        train_labels=labels,
        target_labels=targets.tensors[1].tolist(),
        predicted_labels=predicted.tolist(),
        targets=unsure,
        path=output / "attributions.png",
    )
    print(f"\npicture: {picture}\n")
    truth = retrain(
        partial(train, data),
        task="image_classification",
        targets=DataLoader(targets, batch_size=100),
        train_set_size=TRAIN,
        save_dir=output / "retrained",  # kept: a second run trains nothing
        subsets=SUBSETS,
        seeds=SEEDS,
        config={"data": "digits, shuffled by seed 0", "model": "CNN of 19,977 parameters", "epochs": EPOCHS},
    )
    score = lds(attribution, truth)
    print(score)
    score.plot().figure.savefig(output / "lds.png", dpi=130)


if __name__ == "__main__":
    main()
