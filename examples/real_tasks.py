"""Three classifiers of real data, small enough to be trained a thousand times: what evaluation is tried on.

`digits`: scikit-learn's scans of handwritten digits, a CNN. `fashion`: Fashion-MNIST (Xiao et al., 2017; carried by
Debian's package dataset-fashion-mnist, MIT licence), a CNN. `snippets`: 4,000 snippets each of Amazon and film
reviews, editorials and tweets (Hutto & Gilbert, ICWSM 2014; carried by the source package of vaderSentiment 3.3.2,
MIT licence), told apart by a small BERT.
"""

import gzip
import io
import re
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import quickstart
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

CACHE = Path(__file__).parent / "output" / "data"
SOURCES = ("amazonReviewSnippets", "movieReviewSnippets", "nytEditorialSnippets", "tweets")
LENGTH, VOCABULARY = 32, 2000
_FASHION_FILES = {"images-idx3-ubyte": 16, "labels-idx1-ubyte": 8}


@dataclass(frozen=True)
class RealTask:
    """A training set, targets, and how a model is trained on some of the training set."""

    name: str
    task: str
    train: "Trainer"
    labels: Tensor
    """Of the training examples."""
    target_labels: Tensor
    batches: Callable[[Tensor], list[Any]]
    """The training examples, under the labels given, in batches of 100."""
    targets: list[Any]
    representation: str
    """The layer before the last."""
    texts: tuple[list[str], list[str]] | None = None
    """Training examples and targets in words."""

    @property
    def config(self) -> dict[str, Any]:
        """Of the training, for the record."""
        return {"epochs": self.train.epochs}

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(self.labels)

    def make(self) -> nn.Module:
        """A model to load checkpoints into."""
        return self.train(np.arange(2), 0)


@dataclass(frozen=True)
class Trainer:
    """Trains a model on some of the examples; a class, so that other processes can be told which function it is."""

    name: str
    """Of the task."""
    train_size: int
    targets: int
    epochs: int
    relabelled: tuple[int, ...] | None = None
    """Labels of the training examples, if not their own."""

    def __call__(
        self, indices: Any, seed: int, after_epoch: Callable[[int, nn.Module], None] | None = None
    ) -> nn.Module:
        """Of indices (int64) into the training set, and a seed; `after_epoch` is shown the model, epochs from 1."""
        inputs, labels = PARTS[self.name].load(self.train_size, self.targets)[:2]
        if self.relabelled is not None:
            labels = torch.tensor(self.relabelled)
        torch.manual_seed(seed)
        parts, subset = PARTS[self.name], torch.as_tensor(np.asarray(indices))
        model = parts.model().train()
        optimizer, size = parts.optimizer(model.parameters()), parts.batch_size
        steps = self.epochs * -(-len(subset) // size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], steps)
        for epoch in range(self.epochs):
            for batch in subset[torch.randperm(len(subset))].split(size):
                optimizer.zero_grad()
                logits = parts.logits(model, inputs[batch])
                nn.functional.cross_entropy(logits, labels[batch]).backward()
                optimizer.step()
                schedule.step()
            if after_epoch is not None:
                after_epoch(epoch + 1, model)
        return model.eval()


@dataclass(frozen=True)
class Parts:
    """What training needs to know of a task."""

    load: Callable[[int, int], tuple[Tensor, Tensor]]
    """Inputs and labels: the training examples, then the targets."""
    model: Callable[[], nn.Module]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    logits: Callable[[nn.Module, Tensor], Tensor]
    batch_size: int


def digits(train_size: int = 1000, targets: int = 200) -> RealTask:
    """Handwritten digits, 8 × 8, by a CNN of 19,977 parameters."""
    return _images(Trainer("digits", train_size, targets, epochs=12), "7")


def fashion(train_size: int = 2000, targets: int = 200) -> RealTask:
    """Photographs of clothes, 28 × 28, by a CNN of 30,794 parameters."""
    return _images(Trainer("fashion", train_size, targets, epochs=20), "8")


def _images(trainer: Trainer, representation: str) -> RealTask:
    images, labels = PARTS[trainer.name].load(trainer.train_size, trainer.targets)
    (images, held_out), (labels, wanted) = (t.split([trainer.train_size, trainer.targets]) for t in (images, labels))

    def batches(images: Tensor, labels: Tensor) -> list[Any]:
        return list(zip(images.split(100), labels.split(100), strict=True))

    return RealTask(
        trainer.name, "image_classification", trainer, labels, wanted, lambda labels: batches(images, labels),
        batches(held_out, wanted), representation,
    )  # fmt: skip


def _load_digits(train_size: int, targets: int) -> tuple[Tensor, Tensor]:
    quickstart.TRAIN, quickstart.TARGETS = train_size, targets
    (images, labels), (held_out, wanted) = (data.tensors for data in quickstart.load())
    return torch.cat([images, held_out]), torch.cat([labels, wanted])


def _load_fashion(train_size: int, targets: int) -> tuple[Tensor, Tensor]:
    images, labels = _fashion_mnist()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))[: train_size + targets]
    return images[order], labels[order]


@cache
def _fashion_mnist() -> tuple[Tensor, Tensor]:
    """60,000 images (N, 1, 28, 28) in [-1, 1] and labels (N,)."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.exists():
        unpacked = CACHE / "fashion-mnist"
        folder = unpacked / folder.relative_to("/")
        if not folder.exists():
            unpacked.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", "dataset-fashion-mnist"], check=True, cwd=unpacked)  # noqa: S607
            (package,) = unpacked.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)  # noqa: S603, S607
    bytes_of = {name: gzip.decompress((folder / f"train-{name}.gz").read_bytes()) for name in _FASHION_FILES}
    images, labels = (
        torch.frombuffer(bytearray(bytes_of[name][skip:]), dtype=torch.uint8) for name, skip in _FASHION_FILES.items()
    )
    return images.reshape(-1, 1, 28, 28).float() / 127.5 - 1, labels.long()


def small_cnn() -> nn.Module:
    """30,794 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32), nn.ReLU(),
        nn.Linear(32, 10),
    )  # fmt: skip


def snippets(train_size: int = 1000, targets: int = 200) -> RealTask:
    """Which of four sources a text is from, by a BERT of two layers of 64."""
    words = _encoded()[0]
    ids, labels = _load_snippets(train_size, targets)
    texts = [words[i] for i in _order(train_size + targets).tolist()]

    def batches(some: slice, labels: Tensor) -> list[Any]:
        parts = zip(ids[some].split(100), labels.split(100), strict=True)
        return [{"input_ids": i, "attention_mask": (i > 0).long(), "labels": y} for i, y in parts]

    head, tail = slice(0, train_size), slice(train_size, None)
    return RealTask(
        "snippets", "text_classification", Trainer("snippets", train_size, targets, epochs=6), labels[head],
        labels[tail], lambda labels: batches(head, labels), batches(tail, labels[tail]), "bert.pooler",
        (texts[head], texts[tail]),
    )  # fmt: skip


def _load_snippets(train_size: int, targets: int) -> tuple[Tensor, Tensor]:
    _, ids, labels = _encoded()
    order = _order(train_size + targets)
    return ids[order], labels[order]


def _order(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).permutation(len(_encoded()[2])))[:count]


def small_bert() -> nn.Module:
    """230,000 parameters."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=LENGTH, num_labels=len(SOURCES), hidden_dropout_prob=0.1,
    )  # fmt: skip
    return BertForSequenceClassification(config)


@cache
def _encoded() -> tuple[list[str], Tensor, Tensor]:
    """Texts, ids of their first words (N, LENGTH) with 0 where there are none, and sources (N,)."""
    texts, sources = [], []
    for source, name in enumerate(SOURCES):
        lines = _archive().extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt").read().decode("latin1").splitlines()  # type: ignore[union-attr]
        found = [line.split("\t", 2)[2].strip() for line in lines][:4000]
        texts += found
        sources += [source] * len(found)
    words = [re.findall(r"[a-z']+|[^a-z\s]", text.lower()) for text in texts]
    common = Counter(word for text in words for word in text).most_common(VOCABULARY - 2)
    number = {word: i + 2 for i, (word, _) in enumerate(common)}
    ids = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
    for row, text in zip(ids, words, strict=True):
        found_ids = [number.get(word, 1) for word in text[:LENGTH]] or [1]
        row[: len(found_ids)] = torch.tensor(found_ids)
    return texts, ids, torch.tensor(sources)


def _archive() -> tarfile.TarFile:
    package = CACHE / "vaderSentiment-3.3.2.tar.gz"
    if not package.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--dest", str(CACHE), "vaderSentiment==3.3.2"]
        subprocess.run(command, check=True)  # noqa: S603
    with tarfile.open(package) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        return tarfile.open(fileobj=io.BytesIO(inner.read()))  # type: ignore[union-attr]


def _momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)


PARTS = {
    "digits": Parts(_load_digits, quickstart.make_model, _momentum, lambda model, x: model(x), 50),
    "fashion": Parts(_load_fashion, small_cnn, _momentum, lambda model, x: model(x), 50),
    "snippets": Parts(
        _load_snippets, small_bert, lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.01),
        lambda model, x: model(input_ids=x, attention_mask=(x > 0).long()).logits, 32,
    ),
}  # fmt: skip
TASKS: dict[str, Callable[..., RealTask]] = {"digits": digits, "fashion": fashion, "snippets": snippets}


def checkpoints(task: RealTask, count: int, directory: Path) -> tuple[list[Path], float]:
    """Files of models trained on everything, each from a seed of its own, and the mean seconds that one took."""
    directory.mkdir(parents=True, exist_ok=True)
    paths, seconds = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in tqdm(range(count), desc="checkpoints", unit="model"):
        path = directory / f"{seed}.pt"
        if not path.exists():
            states: dict[int, Any] = {}
            start = time.process_time()
            task.train(
                np.arange(task.size), seed, lambda epoch, model: states.update({epoch: deepcopy(model.state_dict())})
            )
            torch.save({"states": states, "seconds": time.process_time() - start}, path)
        seconds.append(torch.load(path)["seconds"])
        paths.append(path)
    torch.set_num_threads(threads)
    return paths, float(np.mean(seconds))


def weights(path: Path, epoch: int = -1) -> Any:
    """The state dict in a file of `checkpoints`: the last, or that after an epoch; from the end, -1 is the last."""
    states = torch.load(path)["states"]
    return states[epoch if epoch > 0 else len(states) + 1 + epoch]
