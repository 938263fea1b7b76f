"""Wrappers of models, removed: DistributedDataParallel, torch.compile, accelerate's mixed precision."""

import copy
from collections.abc import Collection, Iterable, Mapping
from types import MethodType
from typing import TypeVar

from torch import nn

from trak._utils.validation import check_model

T = TypeVar("T")

_COMPILED = "_orig_mod"
_ORIGINAL = "_original_forward"
"""The attribute in which accelerate keeps the forward that it replaces by one in mixed precision."""


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model without its wrappers, with the same parameters under their own names.

    A model whose forward accelerate replaced is copied with its original forward; the copy shares parameters, buffers
    and modules with the model, which is not changed.
    """
    check_model(model)
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif _COMPILED in dict(model.named_children()) or _COMPILED in vars(model):
            model = getattr(model, _COMPILED)
        else:
            break
    if not {_ORIGINAL, "forward"} <= vars(model).keys():  # the new forward may be that of what was around it
        return model
    plain = copy.copy(model)
    original = vars(plain).pop(_ORIGINAL)
    del plain.forward
    if getattr(original, "__func__", None) is not type(plain).forward:
        bound = getattr(original, "__self__", None) is model
        plain.forward = MethodType(original.__func__, plain) if bound else original
    return plain


def rename_to_match(state: Mapping[str, T], own: Mapping[str, object]) -> dict[str, T]:
    """A state dict under a model's own names, if it was taken from the wrapped model, or the other way round, or from a
    module that contains nothing but the model."""
    if set(state) == set(own):
        return dict(state)
    names = {_strip_wrappers(name): name for name in own}
    found = {names.get(_strip_wrappers(name), name): value for name, value in state.items()}
    if len(found) < len(state):
        return dict(state)
    prefix = _common_prefix(found, own)
    return {name.removeprefix(prefix): value for name, value in found.items()}


def _common_prefix(names: Iterable[str], own: Collection[str]) -> str:
    """The prefix of all names without which the model has them; empty if there is none."""
    names = list(names)
    if not names or all(name in own for name in names):
        return ""
    parts = names[0].split(".")
    prefixes = (".".join(parts[:i]) + "." for i in range(1, len(parts)))
    return next((p for p in prefixes if all(n.startswith(p) and n.removeprefix(p) in own for n in names)), "")


def _strip_wrappers(name: str) -> str:
    parts = [part for part in name.split(".") if part != _COMPILED]
    while len(parts) > 1 and parts[0] == "module":  # of DistributedDataParallel
        parts.pop(0)
    return ".".join(parts)
