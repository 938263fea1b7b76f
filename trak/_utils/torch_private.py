"""Private parts of torch: the only module that uses them."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

run_backward = torch.autograd.graph._engine_run_backward
DisableTorchFunction = torch._C.DisableTorchFunction
is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
unwrapped = torch._C._functorch.get_unwrapped
foreach_addcmul_ = torch._foreach_addcmul_
foreach_norm = torch._foreach_norm
pack_padded_sequence = torch._VF._pack_padded_sequence


def version(t: Tensor) -> int:
    """A number that grows with every write to a tensor in place."""
    return t._version


def is_view(t: Tensor) -> bool:
    """Whether a tensor is a view of another."""
    return t._is_view()


def storage_key(storage: torch.UntypedStorage) -> int:
    """What is the same for two objects of the same memory."""
    return storage._cdata


def flat_weights_names(module: nn.RNNBase) -> list[str]:
    """Names of the weights of a recurrent module, in the order in which torch's kernels take them."""
    return module._flat_weights_names


def forward_hooks(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """The module's hooks before and after its forward pass, by their keys."""
    return module._forward_pre_hooks, module._forward_hooks


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks of any kind are registered on a module."""
    return bool(module._forward_pre_hooks or module._forward_hooks or module._backward_hooks)


def compiler_is_loaded() -> bool:
    """Whether something in this process may have been compiled by torch.compile."""
    return "torch._dynamo" in sys.modules
