"""Data sets of single examples, made into loaders: datasets' with the columns that transformers' Trainer would keep."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from trak.batches import Batch
from trak.extras import imported
from trak.tasks.inputs import arguments
from trak.tasks.logits import LABEL_KEYS
from trak.wrappers import unwrapped

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
        what: what the user calls the data.
        batch_size: examples of a batch, 32 by default.
        collate_fn: makes a batch of a list of examples, as that of a DataLoader; or a tokenizer, which pads
            them. By default `transformers.default_data_collator`, for data sets of torch
            `torch.utils.data.default_collate`.
        index_key: a column that is kept besides.

    Raises:
        TypeError: for several data sets in one.
        ValueError: if batch_size is no positive integer.
    """
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}; leave it out for {BATCH_SIZE}")
    if _is(data, "datasets.dataset_dict.DatasetDict"):
        raise TypeError(f"{what} is a DatasetDict; pass one of its data sets: {', '.join(map(repr, data))}")
    if not _is_dataset(data):
        return data
    size, collate = batch_size or BATCH_SIZE, _padding(collate_fn)
    rows = _within(data)
    if not _is(rows, _ROWS):
        return DataLoader(data, size, collate_fn=collate)
    if collate is None:
        need = f"{what} is a datasets.Dataset, whose rows transformers collates unless collate_fn is given"
        collate = _Plain(imported("transformers", need, "transformers").default_data_collator, what)
    accepted = _accepted(model)
    if data is not rows or data.format["type"] == "custom":  # a transform, which may need any column
        return DataLoader(data, size, collate_fn=_Kept(collate, accepted, index_key))
    if data.format["type"] not in (None, "numpy", "torch"):  # tables, whose rows no collator takes
        data = data.with_format(None, columns=data.format["columns"])
    return DataLoader(data.select_columns(_kept(data.column_names, accepted, index_key)), size, collate_fn=collate)


def _is_dataset(data: Any) -> bool:
    """Whether it is a data set of single examples that `as_loader` makes a loader of."""
    mapped = isinstance(data, Dataset) and not isinstance(data, IterableDataset)
    return mapped or _is(data, _ROWS)


def _within(data: Any) -> Any:
    """The data set that a part of one, or several put together, are made of; of several the first."""
    while isinstance(data, Subset | ConcatDataset):
        data = data.dataset if isinstance(data, Subset) else data.datasets[0]
    return data


def _is(data: Any, name: str) -> bool:
    """Whether an object is of a class, by whose name nothing has to be imported."""
    return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in type(data).__mro__)


def _padding(collate_fn: Any) -> Callable[[list[Any]], Batch] | None:
    if not hasattr(collate_fn, "pad"):
        return collate_fn
    need = "a tokenizer as collate_fn needs transformers"
    return imported("transformers", need, "transformers").DataCollatorWithPadding(collate_fn)


def _accepted(model: nn.Module) -> frozenset[str]:
    model = unwrapped(model)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # what PEFT wraps
    return frozenset(arguments(base)[0])


def _kept(names: list[str], accepted: frozenset[str], index_key: str | int | None) -> list[str]:
    if accepted.isdisjoint(names):
        return names
    return [name for name in names if name in accepted or name in LABEL_KEYS or name == index_key]


@dataclass(frozen=True)
class _Kept:
    """Collates those fields of rows that are kept."""

    collate: Callable[[list[Any]], Batch]
    accepted: frozenset[str]
    index_key: str | int | None

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        names = _kept(list(rows[0]), self.accepted, self.index_key)
        return self.collate([{name: row[name] for name in names} for row in rows])


@dataclass(frozen=True)
class _Plain:
    """Collates rows that are as long as each other, and says which column's are not."""

    collate: Callable[[list[Any]], Batch]
    what: str

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        for name in rows[0]:
            column = [row[name] for row in rows]
            missing = sum(value is None for value in column)
            if 0 < missing < len(column):
                raise ValueError(
                    f"{missing} of {len(column)} rows of {self.what} that come together have None in column {name!r}; "
                    "fill it in, leave these rows out, or remove the column"
                )
            lengths = {
                len(value) for value in column if hasattr(value, "__len__") and getattr(value, "ndim", None) != 0
            }
            if not isinstance(column[0], str) and len(lengths) > 1:
                raise ValueError(
                    f"rows of {self.what} have {min(lengths)} to {max(lengths)} entries in column {name!r}; pass "
                    "collate_fn=tokenizer, which pads them, or a collator of transformers that pads labels too"
                )
        try:
            return self.collate(rows)
        except (RuntimeError, TypeError, ValueError) as error:
            kinds = ", ".join(f"{name!r} ({type(value).__name__})" for name, value in rows[0].items())
            raise ValueError(
                f"rows of {self.what} can't be made into a batch ({error}), with columns {kinds}; pass a collate_fn "
                "that does, or make tensors of them by with_transform"
            ) from error
