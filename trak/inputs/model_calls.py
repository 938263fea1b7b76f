"""How a batch reaches a model: by keyword, or as the first argument."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trak.inputs.batches import Batch, described
from trak.inputs.fields import IGNORED, INPUT_KEYS, LABEL_KEYS, find

Layouts = Mapping[int, tuple[str, ...]]


def as_mapping(batch: Batch, layouts: Layouts, what: str) -> dict[str, Any]:
    """A batch as a dict, the members of a tuple named by the layout of its length.

    Raises:
        ValueError: if it is neither a mapping nor a tuple of a length in `layouts`.
    """
    if isinstance(batch, Mapping):
        return dict(batch)
    members = (batch,) if isinstance(batch, Tensor) else batch
    if not isinstance(members, tuple | list) or len(members) not in layouts:
        forms = " or ".join(f"({', '.join(names)}{',' if len(names) == 1 else ''})" for names in layouts.values())
        raise ValueError(
            f"a batch for {what} is a dict, or a tuple {forms}, got {described(members)}; yield such batches, or "
            "write a Task that reads yours"
        )
    return dict(zip(layouts[len(members)], members, strict=True))


def call_by_keyword(model: nn.Module, batch: Mapping[str, Any]) -> Any:
    """What the model returns for those of a batch's fields that its forward names, as Hugging Face's Trainer has it,
    or for all if it takes any; never for labels, and without a cache of keys and values for tokens to come.

    Raises:
        ValueError: if the forward names none of them.
        TypeError: if it needs others.
    """
    accepted, takes_any = arguments(model)
    inputs = {k: v for k, v in batch.items() if k not in LABEL_KEYS and (takes_any or k in accepted)}
    if not inputs:
        raise ValueError(
            f"none of the batch's inputs ({', '.join(batch)}) is an argument of {type(model).__name__}.forward "
            f"({', '.join(accepted)}); rename the batch's keys, or write a Task; for tuples (inputs ..., labels) of "
            'a model that takes them in order use task="classification"'
        )
    if "use_cache" in accepted:
        inputs.setdefault("use_cache", False)
    return call_model(model, **inputs)


def call_model(model: nn.Module, *inputs: Any, **named: Any) -> Any:
    """What the model returns for these inputs.

    Raises:
        TypeError: if its forward takes not these, but fewer or more.
    """
    try:
        return model(*inputs, **named)
    except TypeError as error:
        try:
            _signature(model).bind(*inputs, **named)
        except TypeError as reason:
            kind, names = type(model).__name__, ", ".join(arguments(model)[0])
            given = ", ".join(named) or f"{len(inputs)} of the batch's members"
            raise TypeError(
                f"{kind}.forward ({names}) was given {given}: {reason}; give all that it needs by tuples (inputs ..., "
                'labels) with task="classification", by dicts with its names as keys (any task but '
                "image_classification), or write a Task whose output calls the model"
            ) from error
        raise


def takes(model: nn.Module, name: str) -> bool:
    """Whether the model's forward may be called with this keyword."""
    accepted, takes_any = arguments(model)
    return takes_any or name in accepted


def arguments(model: nn.Module) -> tuple[list[str], bool]:
    """Names of the arguments of a model's forward, and whether it takes any other keyword."""
    parameters = _signature(model).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return list(parameters), takes_any


def _signature(model: nn.Module) -> inspect.Signature:
    """Of a model's forward; of a scripted one, which doesn't tell, as if it took anything."""
    try:
        return inspect.signature(model.forward)
    except ValueError:
        return inspect.signature(lambda *inputs, **named: None)


def call(model: nn.Module, batch: Batch, what: str) -> Any:
    """What the model returns for (inputs, labels), or a dict of labels and the inputs, by name if several or a text's.

    Raises:
        ValueError: for another batch.
        TypeError: if the model's forward needs other inputs.
    """
    if isinstance(batch, Mapping):
        if is_text(batch) or _needs_several(model):
            return call_by_keyword(model, batch)
        return call_model(model, batch[find(batch, INPUT_KEYS, "inputs")])
    return call_model(model, _pair(batch, what)[0])


def _needs_several(model: nn.Module) -> bool:
    parameters = _signature(model).parameters.values()
    return sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) > 1


def labels_of(batch: Batch, what: str) -> Tensor:
    """The labels of such a batch.

    Raises:
        ValueError: for another batch.
    """
    return batch[find(batch, LABEL_KEYS, "labels")] if isinstance(batch, Mapping) else _pair(batch, what)[1]


def _pair(batch: Batch, what: str) -> Any:
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise ValueError(
            f"a batch for {what} is (inputs, y) or a dict of both, got {described(batch)}; yield such batches, or "
            "write a Task that reads yours"
        )
    return batch


def is_text(batch: Batch) -> bool:
    """Whether a batch is a dict of token ids and what goes with them."""
    return isinstance(batch, Mapping) and batch.get("input_ids") is not None


def without_empty(labels: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """The labels, with `IGNORED` in place of those of texts without a token, which have no output."""
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim < 2 or len(mask) != len(labels):
        return labels
    empty = ~(mask != 0).flatten(1).any(1)
    return labels.masked_fill(empty.reshape(-1, *[1] * (labels.ndim - 1)), IGNORED)


def check_text(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Raise a ValueError unless token ids are among the model's, where it tells how many it has, and the attention
    mask, where there is one of their shape, is of zeros and ones with a one in each row."""
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if not isinstance(ids, Tensor):
        return
    _check_ids(model, ids)
    if not isinstance(mask, Tensor) or mask.ndim != ids.ndim:
        return
    if mask.shape != ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, but input_ids {tuple(ids.shape)}; give one number for "
            "each token"
        )
    other = (mask != 0) & (mask != 1)
    if other.any():
        row = int(other.nonzero()[0, 0])
        raise ValueError(
            f"attention_mask must hold 1 for tokens and 0 for padding, got {mask[other][0].item():g} in row {row} of "
            "the batch; if these are labels, pass a dict"
        )
    empty = ~mask.bool().flatten(1).any(1)
    if empty.any():
        row = int(empty.nonzero()[0])
        raise ValueError(f"row {row} of the batch is empty: its attention_mask is 0 everywhere; leave it out")


def _check_ids(model: nn.Module, ids: Tensor) -> None:
    table = getattr(model, "get_input_embeddings", lambda: None)()
    if not isinstance(table, nn.Embedding):
        return
    outside = (ids < 0) | (ids >= table.num_embeddings)
    if outside.any():
        row = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"token id out of range: {int(ids[outside][0])} in row {row} of the batch, but the model has "
            f"{table.num_embeddings} (0 to {table.num_embeddings - 1}); use the tokenizer that the model was trained "
            "with"
        )


def right_padded(batch: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """The batch with the padding in front of each row moved to its end.

    So that absolute positions count from an example's first token whatever its padding. Fields with
    an entry for each token move along, but for those named in `others`; rows without such padding
    stay as they are.
    """
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return dict(batch)
    first = (mask != 0).long().argmax(1, keepdim=True)
    order = (torch.arange(mask.shape[1], device=mask.device) + first) % mask.shape[1]

    def moved(t: Any) -> Any:
        if not isinstance(t, Tensor) or t.ndim < 2 or t.shape[:2] != mask.shape:
            return t
        return t.take_along_dim(order.reshape(*order.shape, *[1] * (t.ndim - 2)), 1)

    return {key: value if key in others else moved(value) for key, value in batch.items()}
