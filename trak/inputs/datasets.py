"""Loaders of data sets of single examples, with the columns that transformers' Trainer would keep."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from trak._utils.optional import import_optional_dependency
from trak._utils.validation import is_integer
from trak.inputs.batches import Batch
from trak.inputs.fields import LABEL_KEYS
from trak.inputs.model_calls import forward_arguments
from trak.inputs.wrappers import unwrap_model

_Collator = Callable[[list[Any]], Batch]
BATCH_SIZE = 32
_ROWS = "datasets.arrow_dataset.Dataset"


def as_loader(
    data: Any,
    model: nn.Module,
    what: str = "data",
    batch_size: int | None = None,
    collate_fn: Callable[..., Any] | None = None,
    index_key: str | int | None = None,
) -> Iterable[Batch]:
    """A loader of a data set's examples in order; anything else is returned as it is.

    Args:
        data: a `datasets.Dataset`, of which those columns are kept that the forward method of the model names, and
            labels, as by transformers' Trainer (all, if it names none), also within torch's Subset or ConcatDataset;
            or a map-style data set of torch.
        model: the model that the batches are for.
        what: the user's name for the data.
        batch_size: examples of a batch, 32 by default.
        collate_fn: makes a batch of a list of examples, as that of a DataLoader; or a tokenizer, which pads
            them. By default `transformers.default_data_collator`, for data sets of torch
            `torch.utils.data.default_collate`.
        index_key: a column that is kept besides.

    Raises:
        TypeError: for several data sets in one; when read, for text that is not tokenized and labels that are strings,
            which no collator of transformers takes.
        ValueError: if batch_size is no positive integer.
    """
    if batch_size is not None and not is_integer(batch_size, 1):
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}; leave it out for {BATCH_SIZE}")
    if _is_instance(data, "datasets.dataset_dict.DatasetDict"):
        raise TypeError(f"{what} is a DatasetDict; pass one of its data sets: {', '.join(map(repr, data))}")
    if not is_dataset(data):
        return data
    size, collate = int(batch_size or BATCH_SIZE), collate_fn
    if hasattr(collate, "pad"):
        need = "a tokenizer as collate_fn needs transformers"
        collate = import_optional_dependency("transformers", need, "transformers").DataCollatorWithPadding(collate)
    rows = data
    while isinstance(rows, Subset | ConcatDataset):
        rows = rows.dataset if isinstance(rows, Subset) else rows.datasets[0]
    if not _is_instance(rows, _ROWS):
        return DataLoader(data, size, collate_fn=collate)
    if collate is None:
        need = f"{what} is a datasets.Dataset, whose rows transformers collates unless collate_fn is given"
        default = import_optional_dependency("transformers", need, "transformers").default_data_collator
        collate = partial(_collate_equal_lengths, default, what)
    bare = unwrap_model(model)
    accepted = frozenset(forward_arguments(getattr(bare, "get_base_model", lambda: bare)())[0])  # PEFT wraps the base
    if collate_fn is None or type(collate).__module__.partition(".")[0] == "transformers":
        collate = partial(_collate_tokenized, collate, what, accepted)
    if data is not rows or data.format["type"] == "custom":  # a transform, which may need any column
        return DataLoader(data, size, collate_fn=partial(_collate_kept_columns, collate, accepted, index_key))
    if data.format["type"] not in (None, "numpy", "torch"):  # tables, whose rows no collator takes
        data = data.with_format(None, columns=data.format["columns"])
    columns = _kept_columns(data.column_names, accepted, index_key)
    return DataLoader(data.select_columns(columns), size, collate_fn=collate)


def is_dataset(data: Any) -> bool:
    """Whether it is a data set of single examples that `as_loader` makes a loader of."""
    mapped = isinstance(data, Dataset) and not isinstance(data, IterableDataset)
    return mapped or _is_instance(data, _ROWS)


def _is_instance(data: Any, name: str) -> bool:
    """Whether an object is an instance of the class of this name, which need not be imported."""
    return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in type(data).__mro__)


def _kept_columns(names: list[str], accepted: frozenset[str], index_key: str | int | None) -> list[str]:
    if accepted.isdisjoint(names):
        return names
    return [name for name in names if name in accepted or name in LABEL_KEYS or name == index_key]


def _collate_kept_columns(
    collate: _Collator, accepted: frozenset[str], index_key: str | int | None, rows: list[dict[str, Any]]
) -> Batch:
    names = _kept_columns(list(rows[0]), accepted, index_key)
    return collate([{name: row[name] for name in names} for row in rows])


def _collate_tokenized(collate: _Collator, what: str, accepted: frozenset[str], rows: list[dict[str, Any]]) -> Batch:
    """Collate tokenized rows; text raises an error."""
    names = set(rows[0])
    texts = [name for name, value in rows[0].items() if isinstance(value, str)]
    for name in names.intersection(LABEL_KEYS, texts):
        raise TypeError(
            f"labels must be integers, but column {name!r} of {what} has strings, such as "
            f"{rows[0][name]!r:.40}; number the classes: dataset.class_encode_column({name!r})"
        )
    if "input_ids" in accepted and accepted.isdisjoint(names.difference(LABEL_KEYS)):
        text = texts[0] if texts else "text"
        raise TypeError(
            f"{what} is not tokenized: of its columns the model gets {', '.join(map(repr, rows[0]))}, but no "
            f"input_ids; tokenize it first: dataset.map(lambda row: tokenizer(row[{text!r}], truncation=True))"
        )
    return collate(rows)


def _collate_equal_lengths(collate: _Collator, what: str, rows: list[dict[str, Any]]) -> Batch:
    """Collate rows of equal lengths; other lengths raise an error that names the column."""
    for name in rows[0]:
        column = [row[name] for row in rows]
        missing = sum(value is None for value in column)
        if 0 < missing < len(column):
            raise ValueError(
                f"{missing} of {len(column)} rows of {what} that come together have None in column {name!r}; "
                "fill it in, leave these rows out, or remove the column"
            )
        lengths = {len(value) for value in column if hasattr(value, "__len__") and getattr(value, "ndim", None) != 0}
        if not isinstance(column[0], str) and len(lengths) > 1:
            raise ValueError(
                f"rows of {what} have {min(lengths)} to {max(lengths)} entries in column {name!r}; pass "
                "collate_fn=tokenizer, which pads them, or a collator of transformers that pads labels too"
            )
    try:
        return collate(rows)
    except (RuntimeError, TypeError, ValueError) as error:
        kinds = ", ".join(f"{name!r} ({type(value).__name__})" for name, value in rows[0].items())
        raise ValueError(
            f"rows of {what} can't be made into a batch ({error}), with columns {kinds}; pass a collate_fn "
            "that does, or make tensors of them by with_transform"
        ) from error
