"""Models whose parameters `torch.distributed.fsdp.fully_shard` (FSDP2) has spread over ranks.

Each rank holds a part of every parameter, as a DTensor of the whole parameter's shape. While a unit (a module that was
given to `fully_shard`) runs, plain tensors with all of its parameters take their place, which needs every rank.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn


def units(model: nn.Module) -> list[Any]:
    """The modules that were given to `fully_shard`, the model first if it is one."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return [] if fsdp is None else [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]


def is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` was called on the model or on modules of it; a ValueError if ranks share it otherwise."""
    if units(model):
        return True
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()):
        raise ValueError(
            f"the model ({type(model).__name__}) is wrapped by FullyShardedDataParallel, whose flat parameters have "
            "no gradient of their own; use torch.distributed.fsdp.fully_shard"
        )
    for name, parameter in model.named_parameters():
        if is_dtensor(parameter):
            raise ValueError(
                f"parameter {name!r} is a DTensor, but no module was given to fully_shard; use "
                "torch.distributed.fsdp.fully_shard, the only supported way to spread a model over ranks"
            )
    return False


def is_dtensor(t: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    tensor = sys.modules.get("torch.distributed.tensor")
    return tensor is not None and isinstance(t, tensor.DTensor)


def to_local(t: Any) -> Any:
    """This rank's part of a tensor; all of one that is not spread over ranks."""
    with torch.no_grad():
        return t.to_local() if is_dtensor(t) else t


def full_tensor(t: Any) -> Tensor:
    """The whole of a tensor that may be spread over ranks; every rank has to call this if it is."""
    return t.full_tensor() if is_dtensor(t) else t


def distribute(t: Any, target: Any) -> Any:
    """Spread a whole tensor over ranks as `target` is, if it is; needs no other rank."""
    if not is_dtensor(target) or not isinstance(t, Tensor) or is_dtensor(t) or t.shape != target.shape:
        return t
    from torch.distributed.tensor import distribute_tensor

    t = t.detach().to(target.device)
    return distribute_tensor(t, target.device_mesh, target.placements, src_data_rank=None)


def reshard(model: nn.Module) -> None:
    """Free the whole parameters that a forward pass has gathered. Units that are not resharded after the forward pass,
    such as the model itself, keep them until then."""
    for unit in units(model):
        unit.reshard()


def compute_device(model: nn.Module) -> torch.device:
    """The device on which a sharded model's parameters are gathered; they must be kept on it, too."""
    for name, parameter in model.named_parameters():
        if not is_dtensor(parameter):
            continue
        kind = parameter.device_mesh.device_type  # type: ignore[attr-defined]
        if parameter.device.type != kind:
            raise ValueError(
                f"parameter {name!r} is on {parameter.device} and gathered on {kind} (CPUOffloadPolicy), which is not "
                "supported; shard the model without offload_policy"
            )
        return parameter.device
    raise ValueError(
        f"fully_shard was called on modules of {type(model).__name__} without parameters; call it on those that have "
        "some"
    )
