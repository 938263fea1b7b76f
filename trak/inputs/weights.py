"""A model's weights: where they are, and as they were, to notice at little cost that they are others now."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trak._utils.torch_private import foreach_norm, is_wrapped, unwrapped, version
from trak.inputs.fsdp import reshard, to_local


def versions(model: nn.Module) -> list[tuple[int, int]]:
    """What changes when a weight is replaced or written to in place; the same inside of torch.func's transforms."""
    return [(to_local(t).data_ptr(), 0 if t.is_inference() else version(t)) for t in map(_beneath, _tensors(model))]


def are_wrapped(model: nn.Module) -> bool:
    """Whether a transform of torch.func has put its own tensors in the place of weights."""
    return any(is_wrapped(t) for t in _tensors(model))


class Weights:
    """The weights that a model has now."""

    def __init__(self, model: nn.Module) -> None:
        # Held, so that no other tensor comes to lie where they are.
        self._held = [t.detach() for t in _tensors(model)]
        self._versions, self._norms = versions(model), _norms(model)

    def are_of(self, model: nn.Module) -> bool:
        """Whether the model still has them.

        Their norms are compared as well, since a write to `p.data` changes no version; not where
        torch.func has wrapped them, which hides their values.
        """
        with torch.no_grad():
            return versions(model) == self._versions and (are_wrapped(model) or _norms(model) == self._norms)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are; the CPU for one without."""
    return next((t.device for t in _tensors(model)), torch.device("cpu"))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    reshard(model)
    return (t for group in (model.parameters(), model.buffers()) for t in group)


def _beneath(t: Tensor) -> Tensor:
    while is_wrapped(t):
        t = unwrapped(t)
    return t


def _norms(model: nn.Module) -> list[float]:
    own = [to_local(t.detach()) for t in _tensors(model)]
    norms = foreach_norm([t for t in own if t.is_floating_point() and t.numel()])
    return torch.stack([norm.to(norms[0]) for norm in norms]).tolist() if norms else []
