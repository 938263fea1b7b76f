"""Five questions to an attribution, on scans of handwritten digits of which some are labelled wrong.

Which labels are wrong; which training examples a prediction depends on, checked by retraining; which data supports a
class; which training examples are useless; and what a CNN and a linear model learn differently. Prints the answers of
docs/analysis.md and draws them, in two minutes on one core.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from running import checkpoints, print_top
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trak
from trak.analysis import (
    LabelIssues,
    RemovalCheck,
    compare_attributions,
    data_values,
    find_label_issues,
    find_removal_set,
    group_attribution,
)
from trak.attribution.results import Attribution, StoredAttribution
from trak.evaluation import harm_scores, mislabel_detection

TRAIN, TARGETS, WRONG, CHECKPOINTS, EPOCHS = 600, 100, 40, 3, 10


def load(train: int = TRAIN, wrong: int = WRONG) -> tuple[TensorDataset, TensorDataset, np.ndarray]:
    """Training digits, some labelled wrong, and targets: images (N, 1, 8, 8) in [-1, 1] and labels (N,); and which."""
    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    x = torch.tensor(images[order], dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    y = torch.tensor(labels[order], dtype=torch.int64)
    which = np.sort(rng.permutation(train)[:wrong])
    given = y[:train].clone()
    given[which] = (given[which] + torch.tensor(rng.integers(1, 10, wrong))) % 10
    return TensorDataset(x[:train], given), TensorDataset(x[TRAIN:][:TARGETS], y[TRAIN:][:TARGETS]), which


def make_cnn() -> nn.Module:
    """A CNN of 19,977 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 29), nn.ReLU(), nn.Linear(29, 10),
    )  # fmt: skip


def make_linear() -> nn.Module:
    """A linear model of 650 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def train(data: TensorDataset, make: Callable[[], nn.Module], indices: np.ndarray, seed: int) -> nn.Module:
    """Train on a subset."""
    torch.manual_seed(seed)
    model, (x, y), subset = make(), data.tensors, torch.from_numpy(indices)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    batches = [
        batch
        for _ in range(EPOCHS)
        for batch in subset[torch.randperm(len(subset))].split(50 if len(subset) > 300 else 15)
    ]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def attributed(
    folder: Path, name: str, make: Callable[[], nn.Module], data: TensorDataset, **targets: TensorDataset
) -> list[StoredAttribution]:
    """Several targets attributed to a training set, by three models that are trained if they are not there."""
    n = len(data)
    settings = {"model": name, "train": n, "epochs": EPOCHS}
    paths = checkpoints(folder / name, CHECKPOINTS, lambda seed: train(data, make, np.arange(n), seed), settings)
    states = [torch.load(path)["state_dict"] for path in paths]
    store = folder / ("features" if name == "cnn" else f"{name}-features")
    return [
        trak.attribute(
            make(), "image_classification", states, DataLoader(data, 100), DataLoader(given, 100), store,
            exp_name=exp_name, proj_dim=512, progress=False,
        )
        for exp_name, given in targets.items()
    ]  # fmt: skip


def outputs(folder: Path, make: Callable[[], nn.Module], targets: TensorDataset) -> np.ndarray:
    """f of each example, the mean of the models' margins log(p / (1 - p)): (n_targets,)."""
    model, found, (x, y) = make(), [], targets.tensors
    for path in sorted(folder.glob("checkpoint*.pt")):
        model.load_state_dict(torch.load(path)["state_dict"])
        with torch.no_grad():
            logits = model.double().eval()(x.double())
        label = nn.functional.one_hot(y, 10).bool()
        found.append(logits[label] - logits.masked_fill(label, -torch.inf).logsumexp(-1))
    return torch.stack(found).mean(0).numpy()


def label_issue_answer(
    attribution: StoredAttribution, self_attribution: Attribution, y: np.ndarray, wrong: np.ndarray
) -> LabelIssues:
    """Which labels are wrong? Beside the truth."""
    found = find_label_issues(attribution, y, k=len(wrong), self_attribution=self_attribution, progress=False)
    truth = load_digits().target[np.random.default_rng(0).permutation(1797)]
    hits = np.isin(found.indices, wrong)
    right = int((np.asarray(found.suggested_labels) == truth[found.indices])[hits].sum())
    print(f"{found}\n  {hits.sum()} of the {len(wrong)} wrong ones are among them, {right} with the right suggestion")
    print(f"  by self-influence: {mislabel_detection(found.issue_scores, wrong)}")
    print(f"  by harm: {mislabel_detection(harm_scores(attribution), wrong)}")
    return found


def removal_answers(
    attribution: Attribution, f: np.ndarray, count: int, data: TensorDataset, targets: TensorDataset, folder: Path
) -> list[RemovalCheck]:
    """Which training examples do the right predictions with f just above 1 depend on?"""
    found = []
    for target in np.flatnonzero(f > 1)[f[f > 1].argsort()][:count].tolist():
        plan = find_removal_set(attribution, target, output=f[target])
        checked = plan.check(
            partial(train, data, make_cnn), "image_classification", DataLoader(targets, 100), save_dir=folder,
            seeds=5, random_sets=3, jobs=1, progress=False,
        )  # fmt: skip
        print(f"{plan}\n  {checked}")
        found.append(checked)
    changes, predicted = np.array([[each.change, each.predicted] for each in found]).mean(axis=0)
    flipped = sum(bool(each.flipped) for each in found)
    print(f"{flipped} of {count} predictions flip; mean change {changes:+.2f}, predicted {predicted:+.2f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("examples/output/analysis"), help="where results go")
    parser.add_argument("--smoke", action="store_true", help="fewer training examples and models, in seconds")
    arguments = parser.parse_args()
    folder, smoke = arguments.output, arguments.smoke
    data, targets, wrong = load(200, 15) if smoke else load()
    y, target_labels = data.tensors[1].numpy(), targets.tensors[1].numpy()
    attribution, self_attribution = attributed(folder, "cnn", make_cnn, data, targets=targets, itself=data)
    (linear,) = attributed(folder, "linear", make_linear, data, targets=targets)

    issues = label_issue_answer(attribution, self_attribution, y, wrong)
    print(f"  by the training loss: {mislabel_detection(-outputs(folder / 'cnn', make_cnn, data), wrong)}")
    f = outputs(folder / "cnn", make_cnn, targets)
    checked = removal_answers(attribution, f, 1 if smoke else 8, data, targets, folder / "retrained")
    support = group_attribution(attribution, target_labels == 8, groups=y)
    print(support)
    values = data_values(attribution)
    print(f"{values}\n  {np.isin(values.harmful(), wrong).sum()} of those below 0 are labelled wrong")
    comparison = compare_attributions(attribution, linear, names=("CNN", "linear model"))
    print(comparison)
    for title, stores in (
        ("one of each", ("features", "linear-features")),
        ("two seeds of the CNN", ("features",) * 2),
    ):
        one, other = (Attribution.open(folder / name, model_ids=[i]) for i, name in enumerate(stores))
        print(f"  {title}: {compare_attributions(one, other).agreement}")

    figure, panels = plt.subplots(2, 3, figsize=(16, 8.4), layout="constrained")
    draw = (issues.plot, checked[-1].plot, support.plot, values.plot, comparison.plot)
    for plot, ax in zip(draw, panels.flat, strict=False):
        plot(ax)
    attribution.plot_scores(targets=f.argsort()[:3].tolist(), ax=panels[1, 2])
    figure.savefig(folder / "analysis.png", dpi=75)
    print_top(attribution, [0], [f"a {target_labels[0]}"], [f"a {label}" for label in y])


if __name__ == "__main__":
    main()
