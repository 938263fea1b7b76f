"""The hooks engine on a model that `fully_shard` has spread over ranks, and the loop that it is compared with.

All ranks go through the model together, each with a batch of its own: whoever calls a method here, every rank does.
FSDP gathers the parameters of a unit before it runs and before its backward pass; an example's gradient of them is
projected on the rank that has the example. FSDP sees no gradient, so that nothing is reduced.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trak._utils.ranks import all_gather_object
from trak._utils.torch_private import DisableTorchFunction, storage_key
from trak.gradients.base import GradientSink, check_output, example_shapes
from trak.gradients.hooks import HooksEngine
from trak.gradients.layers import OPERATIONS, Capture
from trak.gradients.layers.capture import tensors_in
from trak.gradients.loop import LoopEngine, not_connected
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.fsdp import is_dtensor
from trak.tasks import Task

_GETTERS = frozenset(("__get__", "__set__", "requires_grad_", "untyped_storage"))


class GatheredParameters:
    """The plain tensors that stand for a sharded model's parameters while its units run; FSDP uses the same ones in
    every pass, with other memory."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        first = {id(p): name for name, p in model.named_parameters()}
        self._first = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
        self.parameters: dict[str, Tensor] = {}
        """By name, those that were seen."""
        # With the tensors, so that no other comes to have the id of one.
        self._names: dict[int, tuple[str, Tensor]] = {}
        self.storages: set[int] = set()
        """Keys of their memory."""
        self.record(model)

    def record(self, module: nn.Module, prefix: str = "") -> None:
        """Record the parameters of a module that is about to run."""
        for name, p in module.named_parameters(prefix, remove_duplicate=False):
            if not is_dtensor(p) and id(p) not in self._names:
                self.parameters[self._first[name]] = p
                self._names[id(p)] = self._first[name], p
                self.storages.add(storage_key(p.untyped_storage()))

    def name(self, t: Tensor) -> str | None:
        """The name of a parameter, if it is gathered."""
        if id(t) not in self._names and not is_dtensor(t):
            self.record(self._model)
        return self._names.get(id(t), (None,))[0]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While entered, record the parameters of every module before it runs."""
        with ExitStack() as handles:
            for name, module in self._model.named_modules():
                if any(True for _ in module.parameters(recurse=False)):
                    hook = partial(lambda prefix, module, _args: self.record(module, prefix), name)
                    handles.enter_context(module.register_forward_pre_hook(hook))
            yield


class _GatheredCapture(Capture):
    """The same for parameters that are there only while they are used."""

    def __init__(self, gathered: GatheredParameters, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._gathered = gathered

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") not in _GETTERS:  # which FSDP calls before a tensor is in its place
            for t in tensors_in(args, kwargs or {}):
                if func in OPERATIONS and isinstance(t, nn.Parameter) and is_dtensor(t):
                    raise ValueError(
                        f"a parameter of shape {tuple(t.shape)} is spread over ranks where it is used: by tensor "
                        "parallelism beside fully_shard, which is not supported, or outside of the forward pass of "
                        "the module that was given to fully_shard; call "
                        "torch.distributed.fsdp.register_fsdp_forward_method for the method that is called"
                    )
                self._add_gathered(t)
        return super().__torch_function__(func, types, args, kwargs)

    def _own(self, module: nn.Module) -> dict[str, Tensor]:
        with DisableTorchFunction():
            for p in module.parameters():
                self._add_gathered(p)
            return super()._own(module)

    def _add_gathered(self, t: Tensor) -> None:
        if isinstance(t, nn.Parameter) and id(t) not in self._origins:
            name = self._gathered.name(t)
            if name in self._parameters:
                self._add_parameter(name, t)


class ShardedHooksEngine(HooksEngine):
    """`HooksEngine` for a sharded model."""

    def __init__(self, model: nn.Module, task: Task, parameters: Sequence[str]) -> None:
        super().__init__(model, task, parameters)
        self._gathered = GatheredParameters(model)
        self._capture = partial(_GatheredCapture, self._gathered)

    def activation_bytes(self, batch: Batch) -> int:
        """The same, measured by all ranks if one of them has a batch of another shape than before."""
        shapes = example_shapes(batch)
        if not all(all_gather_object(shapes in self._activation_bytes)):
            self._activation_bytes.pop(shapes, None)
        return super().activation_bytes(batch)

    def rounds(self, pieces: int) -> int:
        """As many as the rank with the most pieces has."""
        return max(all_gather_object(pieces))

    def _measure(self, batch: Batch) -> int:
        with self._gathered.recording():
            return super()._measure(batch)

    def _weight_storages(self) -> Collection[int]:
        return self._gathered.storages


class ShardedLoopEngine(LoopEngine):
    """A loop of `torch.autograd.grad` on a sharded model, whose every gradient is dropped before FSDP forms the next
    unit's; only to compare with."""

    def __init__(self, model: nn.Module, task: Task, parameters: Sequence[str]) -> None:
        super().__init__(model, task, parameters)
        self.gathered = GatheredParameters(model)

    def gradients(self, batch: Batch, sink: GradientSink) -> Tensor:
        gathered, outputs, connected = self.gathered, [], False
        for i in range(batches.size(batch)):
            with torch.enable_grad(), gathered.recording():
                output = check_output(self.task, self.task.output(self.model, batches.take(batch, i, i + 1)), 1)
            outputs.append(output[0].detach())
            seen = {name: gathered.parameters[name] for name in self.parameters if name in gathered.parameters}
            if not seen or not output.requires_grad:
                continue
            with ExitStack() as handles:
                for name, p in seen.items():
                    handles.enter_context(p.register_hook(partial(_pass_to_sink, sink, name, i)))
                grads = torch.autograd.grad(output[0], list(seen.values()), allow_unused=True)
            connected = connected or any(g is not None for g in grads)
        if not connected:
            raise not_connected(self)
        return torch.stack(outputs)


def _pass_to_sink(sink: GradientSink, name: str, example: int, g: Tensor) -> Tensor:
    sink(name, (g.to_dense() if g.is_sparse else g).unsqueeze(0), example)
    # What autograd keeps in its place takes no memory.
    return g.new_zeros(()).expand(g.shape)
