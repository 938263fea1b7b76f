"""Pictures with captions, by a small CLIP."""

import io
import json
import math
import re
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import trak
from real_tasks.base import RealTask, Trainer, TrainingSpec
from real_tasks.packages import npm
from trak.inputs.batches import Batch

SIDE, LENGTH, VOCABULARY, WIDTH = 24, 16, 1400, 64
BATCH_SIZE = 100
_WORD = re.compile(r"[^\W_]+|[#*]")


def captions(train_size: int = 2000, targets: int = 300) -> RealTask:
    """Emoji and their names, by a CLIP of 103,953 parameters.

    3,786 pictures of Google's Noto Emoji and the names that Unicode gives them ("woman firefighter: dark skin tone"),
    carried by the npm packages emoji-datasource-google and emojibase-data (MIT licence). Of the 1,911 emoji 310 are
    there in five skin tones as well and 13 of couples in twenty-five, and many persons as woman, man and person;
    training examples and targets are drawn from all alike.
    """
    images, ids = _load(train_size, targets)
    texts = [_pictures()[1][i] for i in _order(train_size + targets)]
    return contrastive_task("captions", images, ids, texts, train_size)


def contrastive_task(name: str, images: Tensor, ids: Tensor, texts: list[str], train_size: int) -> RealTask:
    """The first `train_size` pairs of images and captions (words' numbers, and in words) to train on, the others as
    targets."""
    head, tail = slice(0, train_size), slice(train_size, None)

    def batches(some: slice, ids: Tensor) -> list[Any]:
        parts = zip(images[some].split(100), ids.split(100), strict=True)
        return [{"images": x, "input_ids": y, "attention_mask": (y > 0).long()} for x, y in parts]

    task = trak.tasks.CLIP(bank=batches(head, ids[head]), batch_size=BATCH_SIZE)
    return RealTask(
        name, task, Trainer(name, train_size, len(ids) - train_size), ids[head], ids[tail],
        lambda labels: batches(head, labels), batches(tail, ids[tail]), "visual", (texts[head], texts[tail]),
        Similarity(),
    )  # fmt: skip


class Similarity(trak.tasks.Task):
    """The cosine of an image's embedding and its caption's: what the TRAK paper measures (section 5.1)."""

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        images, texts, _ = model(batch["images"], batch["input_ids"])
        return (images * texts).sum(-1)

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        return None


class SmallCLIP(nn.Module):
    """A CNN and a bag of words, with open_clip's interface."""

    def __init__(self, channels: int = 3, side: int = SIDE, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        left = math.ceil(side / 8)
        self.visual = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(48 * left**2, WIDTH),
        )  # fmt: skip
        self.token_embedding = nn.Embedding(vocabulary, 32, padding_idx=0)
        self.textual = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, WIDTH))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """Of images (B, channels, side, side): (B, WIDTH)."""
        found = self.visual(image)
        return F.normalize(found, dim=-1) if normalize else found

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Of words' numbers (B, LENGTH), 0 where there is none: (B, WIDTH)."""
        words = (text > 0).to(self.token_embedding.weight.dtype).unsqueeze(-1)
        found = self.textual((self.token_embedding(text) * words).sum(1) / words.sum(1).clamp_min(1))
        return F.normalize(found, dim=-1) if normalize else found

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image features, text features, both of length 1, and the logit scale."""
        return self.encode_image(image, True), self.encode_text(text, True), self.logit_scale.exp()


def _load(train_size: int, targets: int) -> tuple[Tensor, Tensor]:
    """Images and the numbers of their names' words, (N, LENGTH): 0 where there is none, 1 for a word that is in no
    training caption."""
    order = _order(train_size + targets)
    images, names = _pictures()
    words = [_WORD.findall(names[i].lower())[:LENGTH] for i in order]
    common = Counter(word for text in words[:train_size] for word in text).most_common(VOCABULARY - 2)
    number = {word: i + 2 for i, (word, _) in enumerate(common)}
    ids = torch.zeros(len(words), LENGTH, dtype=torch.int64)
    for row, text in zip(ids, words, strict=True):
        row[: len(text)] = torch.tensor([number.get(word, 1) for word in text])
    return images[order], ids


def _order(count: int) -> list[int]:
    return np.random.default_rng(0).permutation(len(_pictures()[1]))[:count].tolist()


@cache
def _pictures() -> tuple[Tensor, list[str]]:
    """All images on white, (N, 3, SIDE, SIDE) in [-1, 1], and their names."""
    from PIL import Image

    with npm("emojibase-data", "17.0.0") as data:
        emoji = json.load(data.extractfile("package/en/data.json"))  # type: ignore[arg-type]
    names = {_key(one["hexcode"]): one["label"] for form in emoji for one in (form, *form.get("skins", ()))}
    images, found = [], []
    with npm("emoji-datasource-google", "16.0.0") as pictures:
        for member in pictures:
            if "/img/google/64/" in member.name:
                drawn = Image.open(io.BytesIO(pictures.extractfile(member).read())).convert("RGBA")  # type: ignore[union-attr]
                white = Image.new("RGBA", drawn.size, "white")
                white.alpha_composite(drawn)
                images.append(np.asarray(white.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)))
                found.append(names[_key(member.name.rsplit("/", 1)[1].removesuffix(".png"))])
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1, found


def _key(code_points: str) -> str:
    """Without the variation selector, which the packages put in different places."""
    return "-".join(point for point in code_points.upper().split("-") if point != "FE0F")


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)


def contrastive_loss(model: nn.Module, images: Tensor, ids: Tensor) -> Tensor:
    """InfoNCE in both directions (Radford et al., 2021)."""
    image_features, text_features, scale = model(images, ids)
    logits, own = scale * image_features @ text_features.T, torch.arange(len(ids))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


CAPTIONS = TrainingSpec(_load, SmallCLIP, _optimizer, contrastive_loss, BATCH_SIZE, epochs=10)
