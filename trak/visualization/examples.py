"""One example of a data set as it is displayed: an image, a text, tokens and a label."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from trak._utils.typing import Array
from trak._utils.validation import as_array
from trak.inputs.fields import LABEL_KEYS
from trak.visualization.images import is_figure, is_pillow_image, pixels

_MASK = "attention_mask"
_HIDDEN_FIELDS = (_MASK, "token_type_ids", "position_ids", "pixel_mask")
_NUMBERS_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Example:
    """The displayed parts of an example; a missing part is None or empty."""

    image: Array | None = None
    """Pixels, uint8, as `trak.visualization.images.pixels` gives them."""
    text: str = ""
    tokens: tuple[Any, ...] = ()
    """Numbers, or strings."""
    label: Any = None
    mask: Array | None = None
    """Which of the data set's tokens these are, bool, where some were padding."""
    is_figure: bool = False
    """Whether the image is a matplotlib figure, which is unreadable if small."""
    is_displayable: bool = True
    """Whether any part is of a type that can be displayed, even an empty text."""

    def __bool__(self) -> bool:
        return self.image is not None or bool(self.text) or bool(self.tokens)


def read_example(item: Any) -> Example:
    """Read an item of a data set: a single value, or several in a tuple or under names.

    A string is a text, a number a label, a vector of whole numbers or strings tokens, and an array (H, W), (C, H, W) or
    (H, W, C), or a matplotlib figure, an image. Under names, the label is the field `label` or one of its synonyms; of
    several texts, each is given with its name.
    """
    image, tokens, label, mask, numbers, has_figure = None, (), None, None, "", False
    texts: list[tuple[str, str]] = []
    is_empty = is_missing = is_unknown = False
    for key, value in _fields(item) or [("", _as_array(item))]:
        if _is_missing(value):
            is_missing = is_missing or key not in ("label", *_HIDDEN_FIELDS)
        elif key == _MASK:
            mask = np.asarray(value).astype(bool)
        elif key in _HIDDEN_FIELDS:
            continue
        elif _is_label(key, value):
            label = np.asarray(value).item() if label is None else label
        elif isinstance(value, str):
            texts.append((key, value))
        elif is_pillow_image(value) or is_figure(value):
            if image is None:
                image, has_figure = pixels(value), is_figure(value)
        elif _are_tokens(value) or _is_vector(value, "iu"):
            if key == "label":
                continue
            is_empty = is_empty or not len(value)
            if not tokens:
                tokens = tuple(np.asarray(value).tolist())
            elif not key and mask is None and len(value) == len(tokens) and set(np.unique(value).tolist()) <= {0, 1}:
                mask = np.asarray(value).astype(bool)
        elif _is_vector(value):
            some = ", ".join(f"{v:.3g}" for v in value[:_NUMBERS_SHOWN])
            numbers = numbers or f"[{some}{', …' if len(value) > _NUMBERS_SHOWN else ''}]"
        elif isinstance(value, np.ndarray) and value.ndim and image is None:
            image = pixels(value)
        elif isinstance(value, list) and not value:
            is_empty = True
        elif not _is_number(value):
            is_unknown = True
    text = "\n".join(text if len(texts) == 1 or not key else f"{key}: {text}" for key, text in texts)
    if image is None and not text and not tokens:
        text = numbers
    found = Example(image, text, tokens, label, mask, has_figure)
    return replace(found, is_displayable=bool(found or texts or is_empty or (is_missing and not is_unknown)))


def label_of(item: Any) -> Any:
    """The label of an item, None if there is none: `read_example(item).label`, whatever else is in it."""
    return next((np.asarray(v).item() for key, v in _fields(item) if _is_label(key, v) and not _is_missing(v)), None)


def _fields(item: Any) -> list[tuple[str, Any]]:
    """The values of an item and their names, "label" for those of labels; none if it is a single value."""
    if isinstance(item, Mapping):
        found = [("label" if key in LABEL_KEYS else key, value) for key, value in item.items()]
    elif isinstance(item, list | tuple) and not _are_tokens(item):
        found = [("", value) for value in item]
    else:
        return []
    return [(key, _as_array(value)) for key, value in found]


def _as_array(value: Any) -> Any:
    return as_array(value) if isinstance(value, torch.Tensor) else value


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.generic | np.ndarray) and np.ndim(value) == 0


def _is_label(key: str, value: Any) -> bool:
    return key == "label" if isinstance(value, str) else key in ("", "label") and _is_number(value)


def _are_tokens(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(v, str) for v in value) or all(type(v) is int for v in value)


def _is_vector(value: Any, kinds: str | None = None) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and (kinds is None or value.dtype.kind in kinds)


def join_tokens(tokens: Sequence[str]) -> Iterator[str]:
    """Tokens with the spaces that separate words: the parts of one word are joined."""
    needs_spaces = not any(token[:1].isspace() for token in tokens[1:])
    for place, token in enumerate(tokens):
        spaced = token[2:] if token.startswith("##") else f" {token}"
        yield spaced if place and needs_spaces else token
