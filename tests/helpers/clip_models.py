"""Small image-text models of every interface, and pairs for them."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from trak.inputs import batches

transformers = pytest.importorskip("transformers")
SIZE, VOCABULARY, END, CONTEXT = 8, 30, 29, 12
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
CONFIG = {
    "text_config": {
        **SMALL, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "eos_token_id": END, "bos_token_id": 1,
        "pad_token_id": 0,
    },
    "vision_config": {**SMALL, "image_size": SIZE, "patch_size": 4},
}  # fmt: skip


class OpenClip(nn.Module):
    """The call signature of open_clip's models."""

    def __init__(self):
        super().__init__()
        self.visual, self.embedding = nn.Linear(3 * SIZE * SIZE, 6), nn.Embedding(VOCABULARY, 7)
        self.projection = nn.Parameter(torch.randn(7, 6))
        self.logit_scale, self.context_length = nn.Parameter(torch.tensor(1.5)), CONTEXT

    def encode_image(self, images, normalize=False):
        found = self.visual(images.flatten(1)).tanh()
        return nn.functional.normalize(found, dim=-1) if normalize else found

    def encode_text(self, tokens, normalize=False):
        found = self.embedding(tokens).cumsum(1).tanh().mean(1) @ self.projection
        return nn.functional.normalize(found, dim=-1) if normalize else found

    def forward(self, images, tokens):
        return self.encode_image(images, True), self.encode_text(tokens, True), self.logit_scale.exp()


class Wrapped(nn.Module):
    """Has a forward alone, as a model inside of DistributedDataParallel."""

    def __init__(self, as_dict):
        super().__init__()
        self.module, self.as_dict = OpenClip(), as_dict

    def forward(self, images, tokens):
        found = self.module(images, tokens)
        return (
            dict(zip(("image_features", "text_features", "logit_scale"), found, strict=True)) if self.as_dict else found
        )


MODELS = {
    "CLIPModel": lambda: transformers.CLIPModel(transformers.CLIPConfig(**CONFIG, projection_dim=6)),
    "SiglipModel": lambda: transformers.SiglipModel(transformers.SiglipConfig(**CONFIG)),
    "open_clip": OpenClip,
    "forward alone, tuple": lambda: Wrapped(False),
    "forward alone, dict": lambda: Wrapped(True),
}


def make(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for p in model.parameters():  # larger than initial weights, so that captions differ
            p.add_(0.2 * torch.randn_like(p))
        if hasattr(model, "logit_scale"):
            model.logit_scale.fill_(1.5)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(-2.0)
    return model


def pairs(count, seed=0, length=9, masked=True):
    """Images with captions of different lengths, padded."""
    g = torch.Generator().manual_seed(seed)
    images, own = torch.randn(count, 3, SIZE, SIZE, generator=g), torch.randint(3, 8, (count, 1), generator=g)
    ids, places = torch.randint(2, END, (count, length), generator=g), torch.arange(length)
    ids = torch.where(places < own, ids, 0).masked_fill(places == own - 1, END)
    mask = {"attention_mask": (places < own).long()} if masked else {}
    return {"pixel_values": images, "input_ids": ids, **mask}


def for_model(name, batch):
    return batch if name in ("CLIPModel", "SiglipModel") else (batch["pixel_values"], batch["input_ids"])


def data(name, count, seed=0):
    return for_model(name, pairs(count, seed, masked=name in ("CLIPModel", "SiglipModel")))


class Embedded(NamedTuple):
    image: torch.Tensor
    text: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None


def embedded(model, batch):
    """By each model's own documented calls, not by the library's."""
    if isinstance(batch, dict):
        found = model(**batch)
        return Embedded(
            found.image_embeds, found.text_embeds, model.logit_scale.exp(), getattr(model, "logit_bias", None)
        )
    found = model(*batch)
    return Embedded(*(found.values() if isinstance(found, dict) else found), None)


def true_margins(model, example, negatives, temperature=None):
    """f₁ and f₂ of one pair, from probabilities; `negatives` are (images, texts) that are constants."""
    x, y, scale, bias = embedded(model, example)
    scale = scale if temperature is None else 1 / temperature
    margins = []
    for anchor, other in ((x, negatives[1]), (y, negatives[0])):
        own, others = scale * (x[0] @ y[0]), scale * (other.detach() @ anchor[0])
        if bias is None:
            margins.append(-torch.log(torch.exp(others - own).sum()))
        else:
            p = torch.sigmoid(own + bias) * torch.prod(torch.sigmoid(-(others + bias)))
            margins.append(torch.log(p / (1 - p)).reshape(()))
    return torch.stack(margins)


def all_margins(model, batch, bank, constants_of=None):
    """(B, 2): of examples of the bank, against all others of it. The bank's embeddings are those of `constants_of`."""
    found, rows = embedded(constants_of or model, bank), []
    for i in range(batches.size(batch)):
        example = batches.take(batch, i, i + 1)
        image, text = batches.tensors(example)[:2]
        known = batches.tensors(bank)
        others = [
            j for j in range(batches.size(bank)) if not (known[0][j].equal(image[0]) and known[1][j].equal(text[0]))
        ]
        rows.append(true_margins(model, example, (found.image[others], found.text[others])))
    return torch.stack(rows)


def cheap(count, seed=0):
    return data("open_clip", count, seed)


def outputs(task, model, batch):
    with torch.no_grad():
        return task.output(model, batch)


def without_caption(count, row):
    batch = pairs(count)
    batch["attention_mask"][row] = 0
    return batch
