"""Watches a forward pass for uses of parameters, and its backward pass for their gradients."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trak._utils.messages import shorten_names
from trak._utils.torch_private import DisableTorchFunction, is_view, run_backward, version
from trak.gradients.base import GradientSink
from trak.gradients.layers.registry import DECOMPOSITIONS, LAYERS, OPERATIONS, LayerRule, ParameterUse
from trak.projectors import Block, examples_per_block

_BLOCK_ELEMENTS = 1 << 22
_MARK = "_trak_per_example"


class UnsupportedParameterError(ValueError):
    """Parameters were used in ways for which no rule is known."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"no rule computes the per-example gradient of {shorten_names(names)}; use engine='auto', leave them out "
            "with grad_wrt, or register the layer with trak.gradients.register_layer"
        )


class _ParameterOrigin(NamedTuple):
    """The parameters that a tensor is, or was computed of alone, and that tensor, with its graph."""

    names: tuple[str, ...]
    value: Tensor


class _AttachToGraph(torch.autograd.Function):
    """Make a result that depends on no differentiable tensor part of the graph, without a copy."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        return None, None


class Capture(TorchFunctionMode):
    """While entered, every torch function that is given a parameter goes on without it, so that autograd computes no
    gradient for it; a hook on the result computes each example's when the backward pass gets there.

    What no rule covers is left to autograd and noticed: `backward` returns the parameters that it
    reached. Tensors computed from parameters alone (a transposed weight, 1 + w) are parameters too,
    and their gradients are pulled back. Which tensors depend on the batch is tracked from its own
    (`inputs`); examples are counted along the first dimension.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor], batch_size: int, sink: GradientSink
    ) -> None:
        super().__init__()
        self._parameters: dict[str, Tensor] = {}
        self._origins: dict[int, _ParameterOrigin] = {}
        for name, p in parameters.items():
            self._add_parameter(name, p)
        self._examples, self._sink = batch_size, sink
        self._anchor = torch.zeros((), requires_grad=True, device=next(iter(parameters.values())).device)
        self._paused = 0
        for t in inputs:
            setattr(t, _MARK, True)

    def _add_parameter(self, name: str, p: Tensor) -> None:
        self._parameters[name] = p
        self._origins[id(p)] = _ParameterOrigin((name,), p)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        given = list(tensors_in(args, kwargs))
        parameters = [t for t in given if id(t) in self._origins]
        if not parameters:
            result = func(*args, **kwargs)
            if any(hasattr(t, _MARK) for t in given):
                _mark(result)
            return result
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func in DECOMPOSITIONS:
            with self:
                result = DECOMPOSITIONS[func](*args, **kwargs)
            if result is not NotImplemented:
                return result
        per_example = any(hasattr(t, _MARK) or (t.requires_grad and id(t) not in self._origins) for t in given)
        if func in OPERATIONS:
            result = self._captured(func, args, kwargs, per_example)
            if result is not None:
                return result
        result = func(*args, **kwargs)
        if per_example:
            _mark(result)
        else:
            names = tuple(dict.fromkeys(name for t in parameters for name in self._origins[id(t)].names))
            for t in tensors_in((result,), {}):
                if t.requires_grad and id(t) not in self._origins:
                    self._origins[id(t)] = _ParameterOrigin(names, t)
        return result

    def _captured(self, func: Any, args: Any, kwargs: Any, per_example: bool) -> Tensor | None:
        uses = OPERATIONS[func](*args, **kwargs)
        # Autograd would go on through an argument that is a parameter and has no use.
        used = {id(use.parameter) for use in uses or ()}
        if not uses or not {id(t) for t in tensors_in(args, kwargs) if id(t) in self._origins} <= used:
            return None
        if not per_example and not self._has_batch_shape(uses, args):
            return None
        uses = [use for use in uses if id(use.parameter) in self._origins]
        plain = [t.detach() if id(t) in self._origins else t for t in args]
        options = {k: v.detach() if id(v) in self._origins else v for k, v in kwargs.items()}
        result = func(*plain, **options)
        leading = [result, *(t for use in uses for t in use.saved)]
        if any(t.ndim == 0 or len(t) % self._examples or not len(t) for t in leading):
            return None
        result = self.attach_to_graph(result)
        self.watch(result, uses)
        return result

    def attach_to_graph(self, result: Tensor) -> Tensor:
        """Return a result of examples as part of the graph, so that its gradient reaches `watch`."""
        if not result.requires_grad:
            own = result.clone() if is_view(result) else result
            result = _AttachToGraph.apply(own, self._anchor)  # type: ignore[no-untyped-call]
        _mark(result)
        return result

    def watches(self, parameters: Iterable[Tensor]) -> bool:
        """Whether the gradients of one of these tensors are to be found."""
        return any(id(p) in self._origins for p in parameters)

    def _has_batch_shape(self, uses: Sequence[ParameterUse], args: Any) -> bool:
        """Whether constants alone, such as token types all zero, were made for each example."""
        if any(use.copies > 0 and use.copies % self._examples == 0 for use in uses):
            return True
        constants = (t for t in args if isinstance(t, Tensor) and id(t) not in self._origins and t.ndim > 1)
        # Equal rows, unlike a table of relative positions, of which there may be as many as examples.
        return any(len(t) and len(t) % self._examples == 0 and (t == t[:1]).all() for t in constants)

    def watch(self, result: Tensor, uses: Sequence[ParameterUse]) -> None:
        """Give the sink the gradients of what `uses` tells of a result, when its own gradient is known."""
        uses = [use for use in uses if id(use.parameter) in self._origins]
        saved = [tuple(t.detach() for t in use.saved) for use in uses]
        versions = [version(t) for group in saved for t in group]

        def hook(g: Tensor) -> None:
            if [version(t) for group in saved for t in group] != versions:
                names = ", ".join(repr(n) for use in uses for n in self._origins[id(use.parameter)].names)
                raise RuntimeError(
                    f"the input that the gradient of {names} needs was modified in place; do without the in-place "
                    "operation (inplace=True, +=), or use engine='functional'"
                )
            # Out of sight of this mode, which would be asked about every operation.
            with DisableTorchFunction():
                for use, kept in zip(uses, saved, strict=True):
                    self._send_blocks(use, g, kept)
            saved.clear()

        _when_reached(result, hook)

    def _send_blocks(self, use: ParameterUse, g: Tensor, saved: Sequence[Tensor]) -> None:
        g, *kept = (t.unflatten(0, (self._examples, -1)) for t in (g, *saved))
        dtype = torch.float64 if g.dtype == torch.float64 else torch.float32
        g, *kept = (t.to(dtype) if t.is_floating_point() else t for t in (g, *kept))
        origin = self._origins[id(use.parameter)]
        step = examples_per_block(use.elements or use.parameter.numel(), _BLOCK_ELEMENTS)
        for start in range(0, self._examples, step):
            block = use.block(g[start : start + step], *(t[start : start + step] for t in kept))
            self._send(origin, block, start)

    def _send(self, origin: _ParameterOrigin, block: Block, start: int) -> None:
        if origin.value is self._parameters.get(origin.names[0]):
            self._sink(origin.names[0], block, start)
            return
        dense = block if isinstance(block, Tensor) else block.dense()
        sources, dense = [self._parameters[name] for name in origin.names], dense.to(origin.value.dtype)
        options = {"is_grads_batched": True, "retain_graph": True, "allow_unused": True}
        with torch.enable_grad():
            pulled = torch.autograd.grad(origin.value, sources, dense, **options)
        for name, part in zip(origin.names, pulled, strict=True):
            if part is not None:
                self._sink(name, part, start)

    @contextmanager
    def layer_rules(self, model: nn.Module) -> Iterator[None]:
        """While entered, the model's layers that users registered are captured by their own rules."""
        with ExitStack() as handles:
            for module in model.modules() if LAYERS else ():
                rule = next((LAYERS[kind] for kind in type(module).__mro__ if kind in LAYERS), None)
                if rule is not None:
                    before, after = self._layer_hooks(rule)
                    handles.enter_context(module.register_forward_pre_hook(before))
                    handles.enter_context(module.register_forward_hook(after))
            yield

    def _layer_hooks(self, rule: LayerRule) -> tuple[Callable[..., Any], Callable[..., Any]]:
        own: dict[str, Tensor] = {}

        def before(module: nn.Module, args: Any) -> None:
            self._paused += 1
            own.update(self._own(module))
            for p in own.values():
                p.requires_grad_(False)

        def after(module: nn.Module, args: Any, result: Any) -> Any:
            self._paused -= 1
            for p in own.values():
                p.requires_grad_(True)
            if not torch.is_grad_enabled():
                return result
            if not isinstance(result, Tensor):
                raise TypeError(
                    f"{type(module).__name__} returned {type(result).__name__}, and a registered layer must return a "
                    "tensor; register the module inside of it that does, or use engine='functional'"
                )
            inputs = tuple(t.detach() if isinstance(t, Tensor) else t for t in args)
            result = self.attach_to_graph(result)
            _when_reached(result, lambda g: send(module, inputs, g))
            return result

        def send(module: nn.Module, inputs: Any, g: Tensor) -> None:
            with DisableTorchFunction():
                for name, block in rule(module, inputs, g).items():
                    if name not in own:
                        continue
                    if isinstance(block, Tensor) and block.shape != (self._examples, *own[name].shape):
                        raise ValueError(
                            f"the rule of {type(module).__name__} returned gradients of {name!r} of shape "
                            f"{tuple(block.shape)}, expected {(self._examples, *own[name].shape)}; let the rule "
                            "return one gradient for each example"
                        )
                    self._send(self._origins[id(own[name])], block, 0)

        return before, after

    def _own(self, module: nn.Module) -> dict[str, Tensor]:
        """The watched parameters of a module that is about to run."""
        return {name: p for name, p in module.named_parameters() if id(p) in self._origins}

    def backward(self, outputs: Tensor) -> list[str]:
        """Run the backward pass of Σ outputs; returns the names of the parameters that autograd reached."""
        names = [name for name, p in self._parameters.items() if p.requires_grad]
        if not outputs.requires_grad:
            return []
        sources = (self._anchor, *(self._parameters[name] for name in names))
        # What torch.autograd.grad calls. That one would leave this mode, under which activations that were
        # checkpointed have to be computed again.
        ones, options = torch.ones_like(outputs), {"allow_unreachable": True, "accumulate_grad": False}
        _, *reached = run_backward((outputs,), (ones,), False, False, sources, **options)
        return [name for name, gradient in zip(names, reached, strict=True) if gradient is not None]


def _when_reached(result: Tensor, hook: Callable[[Tensor], None]) -> None:
    """Call `hook` with the gradient of a result, after the result's own hooks: they may change it, and FSDP's gather
    what `hook` needs."""
    position = result.output_nr

    def before(grads: tuple[Tensor | None, ...]) -> None:
        if (g := grads[position]) is not None:
            hook(g)

    assert result.grad_fn is not None  # results are joined to the graph
    result.grad_fn.register_prehook(before)


def tensors_in(args: Any, kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors among a function's arguments, in lists and tuples, too."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value, {})


def _mark(result: Any) -> None:
    for t in tensors_in((result,), {}):
        setattr(t, _MARK, True)
