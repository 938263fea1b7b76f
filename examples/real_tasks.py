"""Two classifiers of real data, small enough to be trained a thousand times: what evaluation is tried on.

`digits`: scikit-learn's scans of handwritten digits, a CNN. `snippets`: 4,000 snippets each of Amazon and film
reviews, editorials and tweets (Hutto & Gilbert, ICWSM 2014; carried by the source package of vaderSentiment 3.3.2,
MIT licence), told apart by a small BERT.
"""

import io
import re
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
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


@dataclass(frozen=True)
class RealTask:
    """A training set, targets, and how a model is trained on some of the training set."""

    name: str
    task: str
    train: Callable[[Any, int], nn.Module]
    """Of indices (int64) and a seed."""
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
        return {"epochs": getattr(self.train, "epochs", 12)}

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(self.labels)

    def make(self) -> nn.Module:
        """A model to load checkpoints into."""
        return self.train(np.arange(2), 0)


def digits(train_size: int = 1000, targets: int = 200) -> RealTask:
    """Handwritten digits, 8 × 8, by a CNN of 20,138 parameters."""
    quickstart.TRAIN, quickstart.TARGETS = train_size, targets
    data, held_out = quickstart.load()
    images, labels = data.tensors
    return RealTask(
        "digits", "image_classification", _Digits(train_size, targets), labels, held_out.tensors[1],
        lambda labels: list(zip(images.split(100), labels.split(100), strict=True)),
        list(zip(*(t.split(100) for t in held_out.tensors), strict=True)), "7",
    )  # fmt: skip


@dataclass(frozen=True)
class _Digits:
    """Trains; a class, so that other processes can be told which function it is."""

    train_size: int
    targets: int
    relabelled: tuple[int, ...] | None = None

    def __call__(self, indices: Any, seed: int) -> nn.Module:
        quickstart.TRAIN, quickstart.TARGETS = self.train_size, self.targets
        data, _ = quickstart.load()
        if self.relabelled is not None:
            data.tensors = (data.tensors[0], torch.tensor(self.relabelled))
        return quickstart.train(data, np.asarray(indices), seed)


def snippets(train_size: int = 1000, targets: int = 200) -> RealTask:
    """Which of four sources a text is from, by a BERT of two layers of 64."""
    words, ids, labels = _encoded()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))[: train_size + targets]
    ids, labels, texts = ids[order], labels[order], [words[i] for i in order.tolist()]

    def batches(some: slice, labels: Tensor) -> list[Any]:
        parts = zip(ids[some].split(100), labels.split(100), strict=True)
        return [{"input_ids": i, "attention_mask": (i > 0).long(), "labels": y} for i, y in parts]

    head, tail = slice(0, train_size), slice(train_size, None)
    return RealTask(
        "snippets", "text_classification", _Snippets(train_size, targets), labels[head], labels[tail],
        lambda labels: batches(head, labels), batches(tail, labels[tail]), "bert.pooler", (texts[head], texts[tail]),
    )  # fmt: skip


@dataclass(frozen=True)
class _Snippets:
    train_size: int
    targets: int
    relabelled: tuple[int, ...] | None = None
    epochs: int = 6

    def __call__(self, indices: Any, seed: int) -> nn.Module:
        _, ids, labels = _encoded()
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))[: self.train_size]
        x, y = ids[order], labels[order] if self.relabelled is None else torch.tensor(self.relabelled)
        torch.manual_seed(seed)
        model, indices = small_bert().train(), torch.as_tensor(indices)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        batches = [b for _ in range(self.epochs) for b in indices[torch.randperm(len(indices))].split(32)]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, len(batches))
        for batch in batches:
            optimizer.zero_grad()
            logits = model(input_ids=x[batch], attention_mask=(x[batch] > 0).long()).logits
            nn.functional.cross_entropy(logits, y[batch]).backward()
            optimizer.step()
            schedule.step()
        return model.eval()


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


TASKS: dict[str, Callable[..., RealTask]] = {"digits": digits, "snippets": snippets}


def checkpoints(task: RealTask, count: int, directory: Path) -> tuple[list[Path], float]:
    """State dicts of models trained on everything, each from a seed of its own, and the mean seconds that one took."""
    directory.mkdir(parents=True, exist_ok=True)
    paths, seconds = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in tqdm(range(count), desc="checkpoints", unit="model"):
        path = directory / f"{seed}.pt"
        if not path.exists():
            start = time.perf_counter()
            model = task.train(np.arange(task.size), seed)
            torch.save({"weights": model.state_dict(), "seconds": time.perf_counter() - start}, path)
        seconds.append(torch.load(path)["seconds"])
        paths.append(path)
    torch.set_num_threads(threads)
    return paths, float(np.mean(seconds))


def weights(path: Path) -> Any:
    """The state dict in a file of `checkpoints`."""
    return torch.load(path)["weights"]
