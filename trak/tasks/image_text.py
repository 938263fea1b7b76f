"""Batches of images with captions, and their embeddings."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trak._utils.counter_random import random_words, stream_key
from trak.inputs.batches import Batch, describe_batch, first_row
from trak.inputs.fields import find_key

IMAGE_KEYS = ("pixel_values", "images", "image")
TEXT_KEYS = ("input_ids", "tokens", "text", "texts", "captions")


class ImageTextBatch(NamedTuple):
    """Images (B, ...), the token ids of their captions (B, L), and a mask (B, L), nonzero for captions' own tokens."""

    images: Tensor
    tokens: Tensor
    mask: Tensor | None

    @property
    def layout(self) -> str:
        """The shapes and types that examples must share to be compared, for messages."""
        text = "" if self.mask is not None else f" of {self.tokens.shape[-1]} tokens"
        mask = "without" if self.mask is None else "with"
        images = f"images of shape {tuple(self.images.shape[1:])} and {self.images.dtype}"
        return f"{images}, captions{text} {mask} an attention_mask"

    def has_no_tokens(self) -> Tensor:
        """Whether each caption has no token, bool (B,)."""
        if self.mask is None:
            return self.tokens.new_zeros(len(self.tokens), dtype=torch.bool)
        return (self.mask == 0).all(1)

    def hashes(self) -> Tensor:
        """A 64-bit hash of each pair, int64 (B,), whatever device it is on and however its caption is padded."""
        # Of tensor operations alone, since a pair's bytes are not at hand inside of torch.vmap.
        pixels, ids = self.images.flatten(1).double().view(torch.int64), self.tokens.long()
        found = _random_words("image", pixels, torch.arange(pixels.shape[1], device=pixels.device)).sum(1)
        own = torch.ones_like(ids) if self.mask is None else self.mask != 0
        return found + (_random_words("text", ids, own.cumsum(1) - 1) * own).sum(1)


def _random_words(what: str, values: Tensor, positions: Tensor) -> Tensor:
    key = stream_key("trak pairs", what)
    return random_words(key, values + random_words(key, positions))


def read_image_text_batch(batch: Batch) -> ImageTextBatch:
    """Read (images, tokens), (images, tokens, attention_mask) or a dict of one of `IMAGE_KEYS`, one of `TEXT_KEYS` and
    perhaps "attention_mask"."""
    if isinstance(batch, Mapping):
        images, tokens = batch[find_key(batch, IMAGE_KEYS, "images")], batch[find_key(batch, TEXT_KEYS, "captions")]
        mask = batch.get("attention_mask")
    elif isinstance(batch, tuple | list) and len(batch) in (2, 3):
        images, tokens, mask = (*batch, None)[:3]
    else:
        raise ValueError(
            "a batch of image-text pairs is (images, tokens), (images, tokens, attention_mask) or a dict of them, got "
            f"{describe_batch(batch)}; yield such batches, or write a Task that reads yours"
        )
    for what, value in (("images", images), ("captions", tokens)):
        if not isinstance(value, Tensor) or value.ndim == 0:
            raise ValueError(
                f"expected {what} as a tensor, got {type(value).__name__}; tokenize and collate them first"
            )
    if tokens.ndim != 2 or tokens.is_floating_point():
        raise ValueError(
            f"expected captions as token ids of shape (B, length), got {tokens.dtype} of shape {tuple(tokens.shape)}; "
            "tokenize the captions, without one-hot or embedding"
        )
    if len(images) != len(tokens):
        raise ValueError(f"there are {len(images)} images for {len(tokens)} captions; give one caption for each image")
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != tokens.shape):
        got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"expected an attention_mask of the captions' shape {tuple(tokens.shape)}, got {got}; pass the mask that "
            "the tokenizer gives"
        )
    return ImageTextBatch(images, tokens, mask)


def check_captions(pairs: ImageTextBatch, what: str) -> None:
    """Raise a ValueError for a caption without tokens."""
    empty = pairs.has_no_tokens()
    if empty.any():
        raise ValueError(
            f"the caption in row {first_row(empty)} of {what} is empty (its attention_mask is all 0); leave the "
            "pair out"
        )


class Embeddings(NamedTuple):
    """Embeddings (B, d) of length 1 of images and texts, and the model's own factor of ⟨image, text⟩ and, if it was
    trained by the sigmoid loss, the bias that is added; None for what it has not."""

    images: Tensor
    texts: Tensor
    scale: Tensor | None
    bias: Tensor | None


def embed(model: nn.Module, batch: Batch) -> Embeddings:
    """The embeddings of a batch, by whichever the model has:

    - transformers' interface: `get_image_features`, `get_text_features`, called by keyword;
    - open_clip's: `encode_image` and `encode_text`, whose results are normalised here as they are by
      its forward; else a forward of (images, tokens) that returns (image_features, text_features,
      logit_scale[, logit_bias]) or a dict of them.
    """
    pairs = read_image_text_batch(batch)
    config = getattr(getattr(model, "config", None), "text_config", None)
    longest = getattr(config, "max_position_embeddings", None) or getattr(model, "context_length", None)
    if isinstance(longest, int) and pairs.tokens.shape[1] > longest:
        raise ValueError(
            f"captions have {pairs.tokens.shape[1]} tokens, and the model ({type(model).__name__}) takes {longest} at "
            "most; truncate them"
        )
    if hasattr(model, "get_image_features") and hasattr(model, "get_text_features"):
        return _embed_by_keyword(model, batch, pairs)
    if hasattr(model, "encode_image") and hasattr(model, "encode_text"):
        clip: Any = model
        found = clip.encode_image(pairs.images), clip.encode_text(pairs.tokens)
        images, texts = (F.normalize(t, dim=-1) for t in found)
        return Embeddings(images, texts, *_scale_and_bias(model))
    return _embed_by_position(model, pairs)


def _embed_by_keyword(model: nn.Module, batch: Batch, pairs: ImageTextBatch) -> Embeddings:
    named = inspect.signature(model.forward).parameters
    inputs = {k: v for k, v in batch.items() if k in named} if isinstance(batch, Mapping) else {}
    inputs |= {"pixel_values": pairs.images, "input_ids": pairs.tokens}
    if pairs.mask is not None:
        inputs["attention_mask"] = pairs.mask
    found = model(**inputs, return_dict=True)
    if not isinstance(getattr(found, "image_embeds", None), Tensor):
        raise _unsupported_model(model, f"its forward returned {type(found).__name__} without image_embeds")
    return Embeddings(found.image_embeds, found.text_embeds, *_scale_and_bias(model))


def _embed_by_position(model: nn.Module, pairs: ImageTextBatch) -> Embeddings:
    try:
        inspect.signature(model.forward).bind(pairs.images, pairs.tokens)
    except TypeError as error:
        raise _unsupported_model(model, f"its forward: {error}") from error
    found: Any = model(pairs.images, pairs.tokens)
    if isinstance(found, Mapping):
        keys = ("image_features", "text_features", "logit_scale", "logit_bias")
        found = [found[key] for key in keys if found.get(key) is not None]
    if not isinstance(found, tuple | list) or not 3 <= len(found) <= 4 or not all(isinstance(t, Tensor) for t in found):
        raise _unsupported_model(model, f"its forward returned {type(found).__name__}")
    images, texts, scale, *bias = found
    if not images.shape == texts.shape == (len(pairs.images), *images.shape[-1:]):
        raise _unsupported_model(model, f"its features have shapes {tuple(images.shape)} and {tuple(texts.shape)}")
    return Embeddings(images, texts, scale, bias[0] if bias else None)


def _scale_and_bias(model: nn.Module) -> tuple[Tensor | None, Tensor | None]:
    # Both libraries keep the logarithm.
    scale = getattr(model, "logit_scale", None)
    return None if scale is None else scale.exp(), getattr(model, "logit_bias", None)


def _unsupported_model(model: nn.Module, why: str) -> TypeError:
    return TypeError(
        f"{type(model).__name__} has the interface neither of transformers' CLIPModel and SiglipModel "
        "(get_image_features, get_text_features) nor of open_clip's models (encode_image, encode_text, or a forward of "
        f"(images, tokens) that returns image_features, text_features and logit_scale): {why}. Wrap it in a module "
        "that has one"
    )
