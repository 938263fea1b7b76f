"""Snapshots of a model's weights, which tell cheaply whether the weights have changed."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trak._utils.torch_private import foreach_norm, is_wrapped, unwrapped, version
from trak.inputs.fsdp import reshard, to_local


def weight_versions(model: nn.Module) -> list[tuple[int, int]]:
    """A pair per weight that changes when it is replaced or written in place; the same inside torch.func transforms."""
    tensors = map(_unwrap_functorch, _tensors(model))
    return [(to_local(t).data_ptr(), 0 if t.is_inference() else version(t)) for t in tensors]


def are_functorch_wrapped(model: nn.Module) -> bool:
    """Whether a torch.func transform has replaced weights by its own tensors."""
    return any(is_wrapped(t) for t in _tensors(model))


class WeightsSnapshot:
    """A model's weights at the time of creation."""

    def __init__(self, model: nn.Module) -> None:
        # Keeps their memory from being reused by other tensors.
        self._held = [t.detach() for t in _tensors(model)]
        self._versions, self._norms = weight_versions(model), _norms(model)

    def matches(self, model: nn.Module) -> bool:
        """Whether the model still has these weights.

        Norms are compared too, since writing to `p.data` changes no version, except inside torch.func transforms, which
        hide values.
        """
        with torch.no_grad():
            if weight_versions(model) != self._versions:
                return False
            return are_functorch_wrapped(model) or _norms(model) == self._norms


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's weights; the CPU if it has none."""
    return next((t.device for t in _tensors(model)), torch.device("cpu"))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    reshard(model)
    return (t for group in (model.parameters(), model.buffers()) for t in group)


def _unwrap_functorch(t: Tensor) -> Tensor:
    while is_wrapped(t):
        t = unwrapped(t)
    return t


def _norms(model: nn.Module) -> list[float]:
    own = [to_local(t.detach()) for t in _tensors(model)]
    norms = foreach_norm([t for t in own if t.is_floating_point() and t.numel()])
    return torch.stack([norm.to(norms[0]) for norm in norms]).tolist() if norms else []
