"""CIFAR-10 with ResNet-9, as in section 4 of the TRAK paper: LDS against the number of checkpoints.

`python examples/cifar10.py` trains 20 models on all images and 50 × 2 on random halves, attributes test images to
training images, and prints the linear datamodeling score (LDS) of 1, 5 and 20 checkpoints. It wants a GPU, where models
train in bfloat16; `--proj-dim 20480 --half-precision` is the paper's k. Kill it at any time, or stop it by `--minutes
20`, and the same command goes on. examples/README.md has a command for two classes and a CPU.
"""

import argparse
import sys
import time
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jpeg_archive import read_archive
from resnets import resnet9
from running import checkpoints, print_top
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

import trak
from trak.attribution.results import StoredAttribution
from trak.evaluation import lds, retrain

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RECIPE = ("classes", "train_size", "epochs", "batch_size", "learning_rate", "width")
SMOKE = """--train-size 200 --targets 50 --epochs 12 --batch-size 20 --learning-rate 0.1 --width 8 --checkpoints 2
    --subsets 3 --proj-dim 256"""


def load(options: argparse.Namespace, split: str, limit: int) -> TensorDataset:
    """Images (N, 3, 32, 32), in [-1, 1], and labels (N,): positions in --classes."""
    if options.smoke:  # enlarged digits
        from sklearn.datasets import load_digits

        images, labels = (x[:limit] if split == "train" else x[-limit:] for x in load_digits(return_X_y=True))
        images = np.kron(images.reshape(-1, 1, 8, 8) / 16 * 255, np.ones((3, 2, 2)))
    elif options.data:
        images, labels = read_archive(options.data, split, options.classes, limit)
    else:
        try:
            from torchvision.datasets import CIFAR10

            data = CIFAR10(options.output / "data", train=split == "train", download=True)
        except (ImportError, RuntimeError, OSError) as error:
            advice = "install torchvision and be online once, or give --data FOLDER with cifar10_jpeg.npz in it"
            raise SystemExit(f"CIFAR-10 can't be had ({error}): {advice}") from error
        rows = np.flatnonzero(np.isin(data.targets, options.classes))[:limit]
        images, labels = data.data[rows].transpose(0, 3, 1, 2), np.array(data.targets)[rows]
    x = torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1
    return TensorDataset(x, torch.tensor([options.classes.index(label) for label in labels]))


def augmented(x: Tensor) -> Tensor:
    """Each image mirrored or not, the batch moved by up to 4 pixels."""
    x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, x.flip(-1), x)
    down, right = torch.randint(9, (2,)).tolist()
    return nn.functional.pad(x, (4, 4, 4, 4), mode="reflect")[..., down:, right:][..., : x.shape[-2], : x.shape[-1]]


def train(data: TensorDataset, recipe: dict[str, Any], indices: Any, seed: int) -> nn.Module:
    """A ResNet-9 trained on some of the images."""
    torch.manual_seed(seed)
    x, y = (tensor[torch.from_numpy(indices)].to(DEVICE) for tensor in data.tensors)
    network: Any = resnet9(len(recipe["classes"]), recipe["width"])
    model: nn.Module = network.to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4)
    steps = recipe["epochs"] * -(-len(x) // recipe["batch_size"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe["learning_rate"], steps, pct_start=0.2)
    for _ in range(recipe["epochs"]):
        for batch in torch.randperm(len(x), device=DEVICE).split(recipe["batch_size"]):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
                images = augmented(x[batch]).to(memory_format=torch.channels_last)
                loss = nn.functional.cross_entropy(model(images), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("examples/output/cifar10"), help="where results go")
    parser.add_argument("--data", type=Path, help="folder with cifar10_jpeg.npz; without, torchvision downloads")
    parser.add_argument("--classes", type=int, nargs="+", choices=range(10), default=[*range(10)])
    for name, default in {
        "train-size": 50_000, "targets": 1000, "epochs": 24, "batch-size": 512, "width": 64, "checkpoints": 20,
        "subsets": 50, "seeds": 2, "proj-dim": 4096, "learning-rate": 0.5, "minutes": float("inf"),
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--half-precision", action="store_true", help="features in 2 bytes a number")
    parser.add_argument("--smoke", action="store_true", help="a small run on scikit-learn's digits")
    return parser.parse_args(SMOKE.split() * ("--smoke" in sys.argv) + sys.argv[1:])


def main() -> None:
    options, start, pieces = parse(), time.monotonic(), count()

    def begin(piece: str) -> None:
        if next(pieces) and time.monotonic() - start > 60 * options.minutes:
            print(f"the time is over; next comes {piece}, and the same command goes on")
            raise SystemExit(0)

    what = "digits" if options.smoke else "CIFAR-10, slightly lossy JPEG copies" if options.data else "CIFAR-10"
    data, targets = load(options, "train", options.train_size), load(options, "test", options.targets)
    recipe = {"data": what, **{name: getattr(options, name) for name in RECIPE}}
    print(f"{what}: {len(data)} training images, {len(targets)} targets")

    on_all = partial(train, data, recipe, np.arange(len(data)))
    paths = checkpoints(options.output, options.checkpoints, on_all, recipe, begin)

    def loaded(path: Path) -> Path:
        begin(f"featurizing by {path.stem}")
        return path

    found = trak.attribute(
        resnet9(len(options.classes), options.width), "image_classification", [partial(loaded, path) for path in paths],
        DataLoader(data, batch_size=500), DataLoader(targets, batch_size=500), options.output / "features",
        proj_dim=options.proj_dim, dtype="float16" if options.half_precision else "float32",
    )  # fmt: skip
    for seeds, subsets in tqdm([*product(range(options.seeds), range(options.subsets))], "retraining", unit="model"):
        begin(f"training on subset {subsets} by seed {seeds}")
        truth = retrain(
            partial(train, data, recipe), "image_classification", DataLoader(targets, batch_size=500),
            train_set_size=len(data), save_dir=options.output / "retrained", subsets=subsets + 1, seeds=seeds + 1,
            config=recipe, jobs=1, progress=False,
        )  # fmt: skip
    print(f"{truth}, {np.asarray(truth.correct).mean():.1%} of the targets right\n")
    print("| checkpoints | LDS (95 % interval) | noise ceiling |\n| --- | --- | --- |")
    for number in sorted({1, 5, 20, options.checkpoints} & {*range(options.checkpoints + 1)}):
        attribution = StoredAttribution(found.experiment, range(number), device=DEVICE)
        score = lds(attribution, truth)
        print(f"| {number} | {score.mean:.3f} ({score.interval}) | {score.noise_ceiling:.3f} |", flush=True)
    names = "0123456789" if options.smoke else NAMES
    labels, wanted = ([names[options.classes[y]] for y in x.tensors[1].tolist()] for x in (data, targets))
    unsure = np.abs(truth.outputs.mean(axis=(0, 1))).argsort()[:5].tolist()
    print_top(attribution, unsure, wanted, labels)
    path, pictures = options.output / "attributions.png", (x.tensors[0] for x in (data, targets))
    attribution.show_images(*pictures, train_labels=labels, target_labels=wanted, targets=unsure, path=path)
    print(f"\npicture: {path}")


if __name__ == "__main__":
    main()
