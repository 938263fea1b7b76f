"""What is prepared once for every package: data and a trained checkpoint."""

import json
from pathlib import Path

import numpy as np
import torch
from models import CASES, Case
from torch import Tensor, nn
from tqdm.auto import tqdm

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TRAINED_ON, STEPS = 2048, 30
RECIPE = 1
"""To be raised when what is made changes, so that what an older version made is not taken for it."""

Data = tuple[Tensor, ...]


def prepare(name: str, directory: Path, images: Path | None, examples: int, targets: int, threads: int) -> str:
    """Write data.pt and checkpoint.pt, unless they are there, and say what the data are."""
    case, text = CASES[name], CASES[name].task == "text_classification"
    source = f"CIFAR-10 from {images}" if images and not text else "synthetic"
    made_of = json.dumps([RECIPE, name, source, examples, targets])
    record = directory / "made_of.json"
    if record.exists() and record.read_text() == made_of:
        return source
    directory.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    trained_on = max(examples, TRAINED_ON)
    if text:
        train, test = sentences(case, trained_on), sentences(case, targets)
    elif images:
        train, test = cifar10(images, "train", trained_on), cifar10(images, "test", targets)
    else:
        train, test = patterns(trained_on), patterns(targets)
    torch.save({"train": [t[:examples].clone() for t in train], "targets": list(test)}, directory / "data.pt")
    torch.save(trained(case, train), directory / "checkpoint.pt")
    record.write_text(made_of)
    return source


def sentences(case: Case, count: int) -> Data:
    """Random words and classes."""
    fields = case.batch(count)
    return fields["input_ids"], fields["attention_mask"], fields["labels"]


def patterns(count: int) -> Data:
    """Noise around a picture of each class."""
    classes = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)).repeat_interleave(4, 2)
    labels = torch.randint(10, (count,))
    return classes.repeat_interleave(4, 3)[labels] + torch.randn(count, 3, 32, 32), labels


def cifar10(folder: Path, split: str, count: int) -> Data:
    """CIFAR-10 from its binary version (data_batch_*.bin, test_batch.bin) or from cifar10_jpeg.npz."""
    archive, files = folder / "cifar10_jpeg.npz", sorted(folder.glob("data_batch_*.bin"))
    if archive.exists():
        from jpeg_archive import read_archive  # in examples/, which models makes importable

        pixels, labels = read_archive(folder, split, range(10), count)
    elif files:
        files = files if split == "train" else [folder / "test_batch.bin"]
        rows = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files])[:count]
        labels, pixels = rows[:, 0].astype(np.int64), rows[:, 1:].reshape(-1, 3, 32, 32)
    else:
        raise FileNotFoundError(f"{folder} has neither data_batch_*.bin (CIFAR-10's binary version) nor {archive.name}")
    if len(labels) < count:
        raise ValueError(f"{folder} has {len(labels)} {split} images, {count} were asked for")
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
    return (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), torch.from_numpy(labels)


def trained(case: Case, train: Data) -> dict[str, Tensor]:
    """A checkpoint after a few steps: gradients at random weights would say little about agreement."""
    model, text = case.make().train(), case.task == "text_classification"
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4 if text else 1e-3)
    order, size = torch.randperm(len(train[-1])), 2 * case.batch_size
    for indices in tqdm(order.split(size)[:STEPS], desc="training", unit="step"):
        *inputs, labels = (member[indices] for member in train)
        logits = model(inputs[0], attention_mask=inputs[1]).logits if text else model(*inputs)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
    return model.state_dict()
