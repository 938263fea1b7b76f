"""Which training images made a pretrained classifier say what it says? For ImageNet, or any folder laid out like it.

`python examples/imagenet.py --data FOLDER` takes a ResNet-18 with torchvision's weights and a FOLDER with
train/CLASS/*.jpg and val/CLASS/*.jpg, prints the training images that pushed the outputs for some validation images up
and down, and draws them. `--weights FILE FILE` averages over checkpoints of your own. Features are kept in --output, so
that it can be killed and goes on, and are used again for other validation images under another `--name`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from resnets import resnet18
from running import checkpoints, print_top
from smoke import photographs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import trak

MEAN, STD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
SMOKE = "--targets 20 --show 3 --size 32 --proj-dim 256 --model small"


class Pictures:
    """Files of images, their middle squares in one size: uint8 (size, size, 3)."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __getitem__(self, index: int) -> np.ndarray:
        with Image.open(self.paths[index]) as image:
            scale = self.size / 0.875 / min(image.size)  # the short side 256 for squares of 224
            width, height = (max(self.size, round(scale * side)) for side in image.size)
            left, top = (width - self.size) // 2, (height - self.size) // 2
            resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(resized.crop((left, top, left + self.size, top + self.size)))


class Split(Dataset):
    """The images of one split as a model takes them, (3, size, size), with their labels."""

    def __init__(self, folder: Path, classes: Sequence[str], size: int, limit: int | None) -> None:
        found = (path for name in classes for path in sorted((folder / name).glob("*")))
        paths = [path for path in found if path.suffix.lower() in SUFFIXES]
        if not paths:
            raise SystemExit(f"{folder} has no images: expected CLASS/*.jpg in it, of the classes {classes[:3]} ...")
        chosen = np.sort(np.random.default_rng(0).permutation(len(paths))[:limit])
        self.pictures = Pictures([paths[i] for i in chosen], size)
        position = {name: i for i, name in enumerate(classes)}
        self.labels = [position[path.parent.name] for path in self.pictures.paths]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = torch.from_numpy(self.pictures[index].copy()) / 255
        return ((pixels - MEAN) / STD).permute(2, 0, 1).contiguous(), self.labels[index]


def make_model(name: str, classes: int, pretrained: bool) -> nn.Module:
    """A model of torchvision, or where that has none of the name, of timm."""
    if name == "small":
        return resnet18(classes, width=8)
    size = {} if pretrained else {"num_classes": classes}
    try:
        from torchvision import models

        if name in models.list_models():
            return models.get_model(name, weights="DEFAULT" if pretrained else None, **size)
        import timm

        return timm.create_model(name, pretrained=pretrained, **size)
    except (ImportError, RuntimeError, OSError) as error:
        raise SystemExit(f"the model {name!r} can't be had ({error}): pip install torchvision timm") from error


def train_small(data: Split, seed: int) -> nn.Module:
    """For --smoke, which can't download weights."""
    torch.manual_seed(seed)
    model = make_model("small", 2, pretrained=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(4):
        for images, labels in DataLoader(data, batch_size=16, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/CLASS/*.jpg and val/CLASS/*.jpg")
    parser.add_argument("--classes", type=Path, help="file with the folder names of the model's classes, one a line")
    parser.add_argument("--output", type=Path, default=Path("examples/output/imagenet"), help="where results go")
    parser.add_argument("--model", default="resnet18", help="name of a model of torchvision or timm")
    parser.add_argument("--weights", type=Path, nargs="+", help="state dicts; by default the library's weights")
    parser.add_argument("--grad-wrt", nargs="+", help="parameters to differentiate by, * allowed; by default all")
    parser.add_argument("--train-size", type=int, help="training images, at random; by default all")
    parser.add_argument("--name", default="targets", help="of this choice of validation images")
    numbers = {"targets": 100, "show": 8, "size": 224, "proj-dim": 4096, "batch-size": 64, "workers": 0}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--smoke", action="store_true", help="a small run on pieces of two photographs")
    options = parser.parse_args(SMOKE.split() * ("--smoke" in sys.argv) + sys.argv[1:])
    if not (options.data or options.smoke):
        parser.error("--data FOLDER is needed: ImageNet is no free download, see https://www.image-net.org")
    return options


def main() -> None:
    options = parse()
    folder: Path = photographs(options.output / "images") if options.smoke else options.data
    found = sorted(path.name for path in (folder / "train").glob("*/"))
    classes = options.classes.read_text().split() if options.classes else found
    data = Split(folder / "train", classes, options.size, options.train_size)
    targets = Split(folder / "val", classes, options.size, options.targets)
    weights: list[Any] = options.weights or []
    if options.smoke and not weights:
        weights = checkpoints(options.output, 2, lambda seed: train_small(data, seed), {"epochs": 4})
    model = make_model(options.model, len(classes), pretrained=not weights).eval()
    outputs = model(targets[0][0][None]).shape[-1]
    if outputs != len(classes):
        raise SystemExit(f"{options.model} has {outputs} classes, {folder / 'train'} {len(classes)}: see --classes")
    print(f"{len(data)} training images and {len(targets)} targets of {len(classes)} classes")
    loader: dict[str, Any] = {"batch_size": options.batch_size, "num_workers": options.workers}
    attribution = trak.attribute(
        model, "image_classification", weights or model, DataLoader(data, **loader), DataLoader(targets, **loader),
        options.output / "features", exp_name=options.name, grad_wrt=options.grad_wrt, proj_dim=options.proj_dim,
    )  # fmt: skip
    shown = np.linspace(0, len(targets) - 1, min(options.show, len(targets)), dtype=int).tolist()
    wanted, names = ([f"{p.parent.name}/{p.name}" for p in split.pictures.paths] for split in (targets, data))
    print_top(attribution, shown, wanted, names)
    path = options.output / f"{options.name}.png"
    attribution.show_images(data.pictures, targets.pictures, targets=shown, path=path)
    print(f"\npicture: {path}")


if __name__ == "__main__":
    main()
