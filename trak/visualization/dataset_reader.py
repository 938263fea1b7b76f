"""Examples of a data set or of columns, read by their number for display."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from trak.inputs.fields import LABEL_KEYS
from trak.inputs.loaders import check_loader
from trak.visualization.examples import Example, label_of, read_example

_BYTES_CACHED = 1 << 26
"""Of pixels; further images are read again whenever they are displayed."""
_DISPLAYABLE = "an image, a figure of matplotlib's, a text, a list of tokens, or a tuple or dict of them"


def check_label_count(labels: Sequence[Any], name: str, count: int, of: str) -> None:
    """Raise a ValueError unless there are `count` labels, each of them one value."""
    if len(labels) != count:
        raise ValueError(f"there are {len(labels)} {name} for {count} {of}; give one for each")
    shape = tuple(getattr(labels, "shape", ()))
    if math.prod(shape[1:]) > 1:
        raise ValueError(
            f"expected one label for each of {count} {of}, got {name} of shape {shape}; use {name}.argmax(1) if these "
            "are probabilities, logits or one-hot"
        )


class DatasetReader(Sequence[Example]):
    """The `count` examples of a data set that the user calls `what`, read on first access.

    A data set is anything whose `dataset[i]` is an example, a DataLoader of one in order, or columns: arrays, tensors
    or lists of length `count` in a tuple, under names or in a DataFrame. None: only labels are known.
    """

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
        self._count, self._what, self._display = count, what, display
        if label_names is not None and not isinstance(label_names, Mapping):
            label_names = dict(label_names.items() if hasattr(label_names, "items") else enumerate(label_names))
        self._names, self._labels = label_names, labels
        self._decode = (lambda token: tokenizer.decode([token])) if hasattr(tokenizer, "decode") else tokenizer
        if labels is not None:
            check_label_count(labels, "labels", count, f"examples ({what})")
        if isinstance(dataset, DataLoader):
            check_loader(dataset, what)
            dataset = dataset.dataset
        self._own_names = _class_names(dataset)
        self._get = None if dataset is None else _make_getter(dataset, count, what)
        self._cache: dict[int, Example] = {}
        self._bytes_cached = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        index = int(index)
        found = self._cache.get(index)
        if found is None:
            found = self._example(index)
            size = 0 if found.image is None else found.image.nbytes
            if self._bytes_cached + size <= _BYTES_CACHED:
                self._bytes_cached += size
                self._cache[index] = found
        return found

    def _example(self, index: int) -> Example:
        item = None if self._get is None else self._get(index)
        found = Example() if item is None else self._read(index, item)
        mask = found.mask if found.mask is not None and len(found.mask) == len(found.tokens) else None
        tokens = found.tokens if mask is None else tuple(compress(found.tokens, mask))
        if self._decode is not None:
            tokens = tuple(t if isinstance(t, str) else self._decode(t) for t in tokens)
        label = found.label if self._labels is None else value_at(self._labels, index)
        found = replace(found, tokens=tuple(map(str, tokens)), label=self.label_name(label), mask=mask)
        return found if found or self._get is None else replace(found, text="(empty)")

    def _read(self, index: int, item: Any) -> Example:
        displayed = item if self._display is None else self._display(item)
        found = read_example(displayed)
        if displayed is not None and found.is_displayable:
            return found if found.label is not None else replace(found, label=label_of(item))
        which = f"example {index} of {self._what}"
        raise ValueError(
            f"can't tell how to show {which}, {_describe_type(item)}; say it with display=function, from such an "
            f"example to {_DISPLAYABLE}"
            if self._display is None
            else f"display returned {_describe_type(displayed)} for {which}, and that can't be shown; let it return "
            + _DISPLAYABLE
        )

    def label_name(self, label: Any) -> str | None:
        """The name of a label, or the label itself as text."""
        if label is None:
            return None
        label = label.item() if isinstance(label, torch.Tensor | np.generic | np.ndarray) else label
        is_whole = isinstance(label, float) and label.is_integer() and abs(label) < 2**53  # exact up to there
        if isinstance(label, bool) or is_whole:
            label = int(label)  # so that predictions `output > 0` are of the same classes as labels 0 and 1
        if self._names is not None and not isinstance(label, str):
            try:
                return str(self._names[label])
            except (KeyError, TypeError) as error:
                raise ValueError(f"label_names has no name for the label {label!r} of {self._what}; add one") from error
        if self._names is None and type(label) is int and label in self._own_names:
            return self._own_names[label]
        return f"{label:.4g}" if isinstance(label, float) else str(label)


def value_at(values: Any, position: int) -> Any:
    """The value at a position; of a pandas Series by position, whatever its index, and None where it is missing."""
    if not hasattr(values, "iloc"):
        return values[position]
    one = values.iloc[position : position + 1]
    return None if one.isna().all() else one.iloc[0]


def _describe_type(item: Any) -> str:
    if isinstance(item, np.ndarray | torch.Tensor):
        return f"an array of shape {tuple(item.shape)}"
    if isinstance(item, Mapping):
        return f"a mapping with {', '.join(map(str, item)) or 'nothing'}"
    if isinstance(item, list | tuple):
        return f"a {type(item).__name__} of {', '.join(map(_describe_type, item[:3])) or 'nothing'}"
    return "None" if item is None else f"a {type(item).__name__}"


def _class_names(dataset: Any) -> dict[int, str]:
    """The class names among the features of a `datasets.Dataset`."""
    features = getattr(dataset, "features", None)
    known = [getattr(features.get(key), "names", None) for key in LABEL_KEYS] if isinstance(features, Mapping) else []
    return dict(enumerate(map(str, next((names for names in known if isinstance(names, list)), []))))


def _make_getter(dataset: Any, count: int, what: str) -> Callable[[int], Any]:
    columns: Mapping[Any, Any] = dict(enumerate(dataset)) if isinstance(dataset, tuple) else {}
    if isinstance(dataset, Mapping) or (hasattr(dataset, "iloc") and np.ndim(dataset) == 2):
        columns = dict(dataset.items())
    if columns and all(hasattr(column, "__len__") and len(column) == count for column in columns.values()):
        if isinstance(dataset, tuple):
            return lambda index: tuple(value_at(column, index) for column in columns.values())
        return lambda index: {key: value_at(column, index) for key, column in columns.items()}
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
    return lambda index: value_at(dataset, index)
