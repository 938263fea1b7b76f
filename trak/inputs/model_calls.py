"""Calls of a model with a batch, by keyword or by position."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trak.inputs.batches import Batch, check_tuple, describe_batch
from trak.inputs.fields import INPUT_KEYS, LABEL_KEYS, find_key
from trak.inputs.token_batches import is_text

TupleLayouts = Mapping[int, tuple[str, ...]]


def batch_as_dict(batch: Batch, layouts: TupleLayouts, what: str) -> dict[str, Any]:
    """A batch as a dict, the members of a tuple named by the layout of its length."""
    if isinstance(batch, Mapping):
        return dict(batch)
    members = (batch,) if isinstance(batch, Tensor) else batch
    if not isinstance(members, tuple | list) or len(members) not in layouts:
        forms = " or ".join(f"({', '.join(names)}{',' if len(names) == 1 else ''})" for names in layouts.values())
        raise ValueError(
            f"a batch for {what} is a dict, or a tuple {forms}, got {describe_batch(members)}; yield such batches, or "
            "write a Task that reads yours"
        )
    return dict(zip(layouts[len(members)], members, strict=True))


def call_by_keyword(model: nn.Module, batch: Mapping[str, Any]) -> Any:
    """Call a model with the fields of a batch that its forward names, as Hugging Face's Trainer does, or with all if it
    takes any keyword; labels are never passed, and no cache of keys and values is made."""
    accepted, takes_any = forward_arguments(model)
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
    """Call a model, and explain a mismatch between the inputs and its forward."""
    try:
        return model(*inputs, **named)
    except TypeError as error:
        try:
            _signature(model).bind(*inputs, **named)
        except TypeError as reason:
            kind, names = type(model).__name__, ", ".join(forward_arguments(model)[0])
            given = ", ".join(named) or f"{len(inputs)} of the batch's members"
            raise TypeError(
                f"{kind}.forward ({names}) was given {given}: {reason}; give all that it needs by tuples (inputs ..., "
                'labels) with task="classification", by dicts with its names as keys (any task but '
                "image_classification), or write a Task whose output calls the model"
            ) from error
        raise


def accepts_keyword(model: nn.Module, name: str) -> bool:
    """Whether the model's forward may be called with this keyword."""
    accepted, takes_any = forward_arguments(model)
    return takes_any or name in accepted


def forward_arguments(model: nn.Module) -> tuple[list[str], bool]:
    """Names of the arguments of a model's forward, and whether it takes any other keyword."""
    parameters = _signature(model).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return list(parameters), takes_any


def _signature(model: nn.Module) -> inspect.Signature:
    """The signature of a model's forward; a scripted model, which has none, is taken to accept anything."""
    try:
        return inspect.signature(model.forward)
    except ValueError:
        return inspect.signature(lambda *inputs, **named: None)


def call_with_inputs(model: nn.Module, batch: Batch, what: str) -> Any:
    """Call a model with the inputs of (inputs, labels) or of a dict; several inputs, or a text's, go by keyword."""
    if isinstance(batch, Mapping):
        parameters = _signature(model).parameters.values()
        required = sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        if is_text(batch) or required > 1:
            return call_by_keyword(model, batch)
        return call_model(model, batch[find_key(batch, INPUT_KEYS, "inputs")])
    return call_model(model, check_tuple(batch, what, "(inputs, y)")[0])


def read_labels(batch: Batch, what: str) -> Tensor:
    """The labels of (inputs, labels) or of a dict."""
    if isinstance(batch, Mapping):
        return batch[find_key(batch, LABEL_KEYS, "labels")]
    return check_tuple(batch, what, "(inputs, y)")[1]
