"""Examples of a data set as people look at them: an image, a text, tokens, and a label."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from trak.inputs.fields import LABEL_KEYS
from trak.inputs.loaders import check_loader
from trak.visualization.images import Array, is_drawing, is_picture, pixels

_MASK = "attention_mask"
_NOT_SHOWN = (_MASK, "token_type_ids", "position_ids", "pixel_mask")
_NUMBERS_SHOWN = 6
_EMPTY = "(empty)"
_WHOLE = 2**53
"""Up to here a float is exactly the whole number that it looks like."""
_BYTES_KEPT = 1 << 26
"""Of pixels; images beyond are read again when they are asked for again."""
_SHOWN = "an image, a figure of matplotlib's, a text, a list of tokens, or a tuple or dict of them"


@dataclass(frozen=True, eq=False)
class Example:
    """What is seen of an example; what it lacks is None or empty."""

    image: Array | None = None
    """Pixels, uint8, as `trak.visualization.images.pixels` gives them."""
    text: str = ""
    tokens: tuple[Any, ...] = ()
    """Numbers, or strings."""
    label: Any = None
    mask: Array | None = None
    """Which of the data set's tokens these are, bool, where some were padding."""
    is_drawing: bool = False
    """Whether the image is a figure of matplotlib's, which is unreadable if small."""
    is_told: bool = True
    """Whether anything in it is of a type that is shown, be it an empty text."""

    def __bool__(self) -> bool:
        return self.image is not None or bool(self.text) or bool(self.tokens)


def read(item: Any) -> Example:
    """What is seen of an item of a data set: a value or several, in a tuple or under names.

    A string is a text, a number a label, a vector of whole numbers or strings tokens, and an array (H, W), (C, H, W) or
    (H, W, C), or a figure of matplotlib's, an image. Under names, the label is what is called `label` or alike; of
    several texts, each is given with its name.
    """
    return _together(_fields(item) or [("", _as_array(item))])


def label_of(item: Any) -> Any:
    """The label among the values of an item, None if there is none: `read(item).label`, whatever else is in it."""
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
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def at(values: Any, position: int) -> Any:
    """The value at a position. A Series of pandas' is not asked by its index, and what it lacks is None."""
    if not hasattr(values, "iloc"):
        return values[position]
    one = values.iloc[position : position + 1]
    return None if one.isna().all() else one.iloc[0]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.generic | np.ndarray) and np.ndim(value) == 0


def _is_label(key: str, value: Any) -> bool:
    if isinstance(value, str):
        return key == "label"
    return key in ("", "label") and _is_number(value)


def _are_tokens(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and (all(isinstance(v, str) for v in value) or all(type(v) is int for v in value))
    )


def _together(fields: Iterable[tuple[str, Any]]) -> Example:
    image, tokens, label, mask, numbers, is_drawn = None, (), None, None, "", False
    texts: list[tuple[str, str]] = []
    is_empty = is_missing = is_strange = False
    for key, value in fields:
        if _is_missing(value):
            is_missing = is_missing or key not in ("label", *_NOT_SHOWN)
        elif key == _MASK:
            mask = np.asarray(value).astype(bool)
        elif key in _NOT_SHOWN:
            continue
        elif _is_label(key, value):
            label = np.asarray(value).item() if label is None else label
        elif isinstance(value, str):
            texts.append((key, value))
        elif is_picture(value) or is_drawing(value):
            if image is None:
                image, is_drawn = pixels(value), is_drawing(value)
        elif _are_tokens(value) or (isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu"):
            if key == "label":
                continue
            is_empty = is_empty or not len(value)
            if not tokens:
                tokens = tuple(np.asarray(value).tolist())
            elif not key and mask is None and len(value) == len(tokens) and set(np.unique(value).tolist()) <= {0, 1}:
                mask = np.asarray(value).astype(bool)
        elif isinstance(value, np.ndarray) and value.ndim == 1:
            some = ", ".join(f"{v:.3g}" for v in value[:_NUMBERS_SHOWN])
            numbers = numbers or f"[{some}{', …' if len(value) > _NUMBERS_SHOWN else ''}]"
        elif isinstance(value, np.ndarray) and value.ndim and image is None:
            image = pixels(value)
        elif isinstance(value, list) and not value:
            is_empty = True
        elif not _is_number(value):
            is_strange = True
    text = "\n".join(text if len(texts) == 1 or not key else f"{key}: {text}" for key, text in texts)
    if image is None and not text and not tokens:
        text = numbers
    found = Example(image, text, tokens, label, mask, is_drawn)
    return replace(found, is_told=bool(found or texts or is_empty or (is_missing and not is_strange)))


def check_one_for_each(labels: Sequence[Any], name: str, count: int, of: str) -> None:
    """Raise a ValueError unless there are so many labels, each of them one value."""
    if len(labels) != count:
        raise ValueError(f"there are {len(labels)} {name} for {count} {of}; give one for each")
    shape = tuple(getattr(labels, "shape", ()))
    if math.prod(shape[1:]) > 1:
        raise ValueError(
            f"expected one label for each of {count} {of}, got {name} of shape {shape}; use {name}.argmax(1) if these "
            "are probabilities, logits or one-hot"
        )


class Examples(Sequence[Example]):
    """A data set's examples, read when they are first asked for."""

    def __init__(
        self,
        dataset: Any,
        count: int,
        what: str,
        *,
        labels: Sequence[Any] | None = None,
        label_names: Sequence[str] | Mapping[Any, str] | None = None,
        display: Callable[[Any], Any] | None = None,
        tokenizer: Any = None,
    ) -> None:
        """
        Args:
            dataset: whatever `dataset[i]` gives examples of, a DataLoader of one in order, or columns: arrays, tensors
                or lists of length `count` in a tuple, under names or in a DataFrame. What is pandas' is read by
                position, whatever its index. None: nothing but labels is known.
            count: how many examples it must have.
            what: what the user calls it.
            labels: in place of those that the examples carry.
            label_names: names of labels that are numbers; by default those of a `datasets.Dataset`.
            display: from an example as the data set gives it to what is to be seen of it; the label is the example's
                own unless what it returns has one.
            tokenizer: with `decode`, or a function, from the number of a token to its text.

        Raises:
            TypeError: if examples of it can't be asked for by their number.
            ValueError: if it has another number of examples.
        """
        self._count, self._what, self._display = count, what, display
        if label_names is not None and not isinstance(label_names, Mapping):
            label_names = dict(label_names.items() if hasattr(label_names, "items") else enumerate(label_names))
        self._names, self._labels = label_names, labels
        self._decode = (lambda token: tokenizer.decode([token])) if hasattr(tokenizer, "decode") else tokenizer
        self._read: dict[int, Example] = {}
        if labels is not None:
            check_one_for_each(labels, "labels", count, f"examples ({what})")
        if isinstance(dataset, DataLoader):
            check_loader(dataset, what)
            dataset = dataset.dataset
        self._own_names = _class_names(dataset)
        self._get = None if dataset is None else _getter(dataset, count, what)
        self._bytes_kept = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        index = int(index)
        if index in self._read:
            return self._read[index]
        found = self._example(index)
        size = 0 if found.image is None else found.image.nbytes
        if self._bytes_kept + size <= _BYTES_KEPT:
            self._bytes_kept += size
            self._read[index] = found
        return found

    def _example(self, index: int) -> Example:
        item = None if self._get is None else self._get(index)
        found = Example() if item is None else self._seen(index, item)
        tokens, mask = found.tokens, found.mask
        if mask is not None and len(mask) == len(tokens):
            tokens = tuple(token for token, kept in zip(tokens, mask, strict=True) if kept)
        else:
            mask = None
        if self._decode is not None:
            tokens = tuple(t if isinstance(t, str) else self._decode(t) for t in tokens)
        label = found.label if self._labels is None else at(self._labels, index)
        found = replace(found, tokens=tuple(map(str, tokens)), label=self.name(label), mask=mask)
        return found if found or self._get is None else replace(found, text=_EMPTY)

    def _seen(self, index: int, item: Any) -> Example:
        if self._display is None:
            found = read(item)
            if found.is_told:
                return found
            raise ValueError(
                f"can't tell how to show example {index} of {self._what}, {_in_words(item)}; say it with "
                f"display=function, from such an example to {_SHOWN}"
            )
        shown = self._display(item)
        found = read(shown)
        if shown is None or not found.is_told:
            raise ValueError(
                f"display returned {_in_words(shown)} for example {index} of {self._what}, and that can't be shown; "
                f"let it return {_SHOWN}"
            )
        return found if found.label is not None else replace(found, label=label_of(item))

    def name(self, label: Any) -> str | None:
        """A label in words."""
        if label is None:
            return None
        label = label.item() if isinstance(label, torch.Tensor | np.generic | np.ndarray) else label
        if isinstance(label, bool) or (isinstance(label, float) and label.is_integer() and abs(label) < _WHOLE):
            label = int(label)  # so that predictions `output > 0` are of the same classes as labels 0 and 1
        if self._names is not None and not isinstance(label, str):
            try:
                return str(self._names[label])
            except (KeyError, TypeError) as error:
                raise ValueError(f"label_names has no name for the label {label!r} of {self._what}; add one") from error
        if self._names is None and type(label) is int and label in self._own_names:
            return self._own_names[label]
        return f"{label:.4g}" if isinstance(label, float) else str(label)


def _in_words(item: Any) -> str:
    if isinstance(item, np.ndarray | torch.Tensor):
        return f"an array of shape {tuple(item.shape)}"
    if isinstance(item, Mapping):
        return f"a mapping with {', '.join(map(str, item)) or 'nothing'}"
    if item is None:
        return "None"
    if isinstance(item, list | tuple):
        return f"a {type(item).__name__} of {', '.join(map(_in_words, item[:3])) or 'nothing'}"
    return f"a {type(item).__name__}"


def _class_names(dataset: Any) -> dict[int, str]:
    """What the features of a `datasets.Dataset` call the classes."""
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        for key in LABEL_KEYS:
            names = getattr(features.get(key), "names", None)
            if isinstance(names, list):
                return {number: str(name) for number, name in enumerate(names)}
    return {}


def _getter(dataset: Any, count: int, what: str) -> Callable[[int], Any]:
    columns: Mapping[Any, Any] = {}
    if isinstance(dataset, Mapping) or (hasattr(dataset, "iloc") and np.ndim(dataset) == 2):
        columns = dict(dataset.items())
    elif isinstance(dataset, tuple):
        columns = dict(enumerate(dataset))
    if columns and all(hasattr(column, "__len__") and len(column) == count for column in columns.values()):
        if isinstance(dataset, tuple):
            return lambda index: tuple(at(column, index) for column in columns.values())
        return lambda index: {key: at(column, index) for key, column in columns.items()}
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"{what} must give an example by its number and know how many it has (dataset[i], len(dataset)), got "
            f"{type(dataset).__name__}; put the examples into a list"
        )
    if len(dataset) != count:
        raise ValueError(
            f"{what} has {len(dataset)} examples, but the attribution {count}; pass the data that was attributed, in "
            "the same order, example by example (not a list of batches)"
        )
    return lambda index: at(dataset, index)


def joined(tokens: Sequence[str]) -> Iterator[str]:
    """Tokens as they are to stand one behind the other: what belongs to one word together, others apart."""
    apart = not any(token[:1].isspace() for token in tokens[1:])
    for place, token in enumerate(tokens):
        if place and apart and not token.startswith("##"):
            yield " " + token
        else:
            yield token.removeprefix("##") if place and apart else token
