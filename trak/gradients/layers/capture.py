"""Watches a forward pass for uses of parameters, and its backward pass for their gradients."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode

from trak.gradients.layers.registry import DECOMPOSITIONS, LAYERS, OPERATIONS, LayerRule, ParameterUse
from trak.projectors import Block, examples_together

Emit = Callable[[str, Block, int], None]

_BLOCK_ELEMENTS = 1 << 22
_MARK = "_trak_per_example"


class UnsupportedParameterError(ValueError):
    """Parameters were used in ways for which no rule is known."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(
            f"no rule tells the per-example gradient of {', '.join(map(repr, names[:3]))}"
            f"{f' and {len(names) - 3} more' if len(names) > 3 else ''}; use engine='auto', leave them out with "
            "grad_wrt, or register the layer with trak.gradients.register_layer"
        )


class _Root(NamedTuple):
    """Where a tensor that an operation used as its parameter comes from."""

    names: tuple[str, ...]
    value: Tensor
    """The parameter, or what was computed of parameters alone, with its graph."""


class _Start(torch.autograd.Function):
    """Makes a result that depends on no differentiable tensor part of the graph, without a copy."""

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
    and their gradients are pulled back. Which tensors depend on the batch is tracked from the
    batch's own; examples are counted along the first dimension.
    """

    def __init__(self, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor], batch_size: int, emit: Emit) -> None:
        """
        Args:
            parameters: by name, those that require gradients.
            inputs: the batch's tensors.
            batch_size: number of examples.
            emit: gets (name, block, first example) for each block of gradients.
        """
        super().__init__()
        self._parameters: dict[str, Tensor] = {}
        self._roots: dict[int, _Root] = {}
        for name, p in parameters.items():
            self._add_parameter(name, p)
        self._examples, self._emit = batch_size, emit
        self._anchor = torch.zeros((), requires_grad=True, device=next(iter(parameters.values())).device)
        self._blind = 0
        for t in inputs:
            setattr(t, _MARK, True)

    def _add_parameter(self, name: str, p: Tensor) -> None:
        self._parameters[name] = p
        self._roots[id(p)] = _Root((name,), p)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._blind:
            return func(*args, **kwargs)
        given = list(tensors_in(args, kwargs))
        roots = [t for t in given if id(t) in self._roots]
        if not roots:
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
        per_example = any(hasattr(t, _MARK) or (t.requires_grad and id(t) not in self._roots) for t in given)
        rule = OPERATIONS.get(func)
        if rule is not None:
            result = self._captured(func, rule, args, kwargs, per_example)
            if result is not None:
                return result
        result = func(*args, **kwargs)
        if per_example:
            _mark(result)
        else:
            names = tuple(dict.fromkeys(name for t in roots for name in self._roots[id(t)].names))
            for t in tensors_in((result,), {}):
                if t.requires_grad and id(t) not in self._roots:
                    self._roots[id(t)] = _Root(names, t)
        return result

    def _captured(self, func: Any, rule: Any, args: Any, kwargs: Any, per_example: bool) -> Tensor | None:
        uses: list[ParameterUse] | None = rule(*args, **kwargs)
        # Autograd would go on through an argument that is a parameter and has no use.
        used = {id(use.parameter) for use in uses or ()}
        if not uses or not {id(t) for t in tensors_in(args, kwargs) if id(t) in self._roots} <= used:
            return None
        if not per_example and not self._has_batch_shape(uses, args):
            return None
        uses = [use for use in uses if id(use.parameter) in self._roots]
        plain = [t.detach() if id(t) in self._roots else t for t in args]
        options = {k: v.detach() if id(v) in self._roots else v for k, v in kwargs.items()}
        result = func(*plain, **options)
        leading = [result, *(t for use in uses for t in use.saved)]
        if any(t.ndim == 0 or len(t) % self._examples or not len(t) for t in leading):
            return None
        result = self._joined(result)
        self._watch(result, uses)
        return result

    def _joined(self, result: Tensor) -> Tensor:
        """A result of examples as part of the graph."""
        if not result.requires_grad:
            own = result.clone() if result._is_view() else result
            result = _Start.apply(own, self._anchor)  # type: ignore[no-untyped-call]
        _mark(result)
        return result

    def watches(self, parameters: Iterable[Tensor]) -> bool:
        """Whether the gradients of one of these tensors are to be found."""
        return any(id(p) in self._roots for p in parameters)

    def addend(self, *shape: int, like: Tensor) -> Tensor:
        """Zeros to be added to what parameters were used for unseen, so that their gradient reaches `watch`."""
        return self._joined(like.new_zeros(shape))

    def watch(self, result: Tensor, uses: Sequence[ParameterUse]) -> None:
        """Emit the gradients of what `uses` tells of a result, when its own gradient is known."""
        self._watch(result, [use for use in uses if id(use.parameter) in self._roots])

    def _has_batch_shape(self, uses: Sequence[ParameterUse], args: Any) -> bool:
        """Whether constants alone, such as token types all zero, were made for each example."""
        if any(use.copies > 0 and use.copies % self._examples == 0 for use in uses):
            return True
        return any(isinstance(t, Tensor) and id(t) not in self._roots and self._one_for_each_example(t) for t in args)

    def _one_for_each_example(self, constant: Tensor) -> bool:
        # Not so a table of relative positions, of which there may be as many as examples.
        if constant.ndim < 2 or not len(constant) or len(constant) % self._examples:
            return False
        return bool((constant == constant[:1]).all())

    def _watch(self, result: Tensor, uses: Sequence[ParameterUse]) -> None:
        saved = [tuple(t.detach() for t in use.saved) for use in uses]
        versions = [t._version for group in saved for t in group]

        def hook(g: Tensor) -> None:
            if [t._version for group in saved for t in group] != versions:
                names = ", ".join(repr(n) for use in uses for n in self._roots[id(use.parameter)].names)
                raise RuntimeError(
                    f"the input that the gradient of {names} needs was modified in place; do without the in-place "
                    "operation (inplace=True, +=), or use engine='functional'"
                )
            # Out of sight of this mode, which would be asked about every operation.
            with torch._C.DisableTorchFunction():
                for use, kept in zip(uses, saved, strict=True):
                    self._emit_blocks(use, g, kept)
            saved.clear()

        _when_reached(result, hook)

    def _emit_blocks(self, use: ParameterUse, g: Tensor, saved: Sequence[Tensor]) -> None:
        g, *kept = (t.unflatten(0, (self._examples, -1)) for t in (g, *saved))
        dtype = torch.float64 if g.dtype == torch.float64 else torch.float32
        g, *kept = (t.to(dtype) if t.is_floating_point() else t for t in (g, *kept))
        root = self._roots[id(use.parameter)]
        step = examples_together(use.elements or use.parameter.numel(), _BLOCK_ELEMENTS)
        for start in range(0, self._examples, step):
            block = use.block(g[start : start + step], *(t[start : start + step] for t in kept))
            self._emit_root(root, block, start)

    def _emit_root(self, root: _Root, block: Block, start: int) -> None:
        if root.value is self._parameters.get(root.names[0]):
            self._emit(root.names[0], block, start)
            return
        dense = block if isinstance(block, Tensor) else block.dense()
        sources = [self._parameters[name] for name in root.names]
        with torch.enable_grad():
            pulled = torch.autograd.grad(
                root.value,
                sources,
                dense.to(root.value.dtype),
                is_grads_batched=True,
                retain_graph=True,
                allow_unused=True,
            )
        for name, part in zip(root.names, pulled, strict=True):
            if part is not None:
                self._emit(name, part, start)

    @contextmanager
    def layers(self, model: nn.Module) -> Iterator[None]:
        """While entered, the model's layers that users registered are captured by their own rules."""
        handles = []
        for module in model.modules() if LAYERS else ():
            rule = next((LAYERS[kind] for kind in type(module).__mro__ if kind in LAYERS), None)
            if rule is not None:
                handles += self._hook_layer(module, rule)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook_layer(self, module: nn.Module, rule: LayerRule) -> list[Any]:
        own: dict[str, Tensor] = {}

        def before(module: nn.Module, args: Any) -> None:
            self._blind += 1
            own.update(self._own(module))
            for p in own.values():
                p.requires_grad_(False)

        def after(module: nn.Module, args: Any, result: Any) -> Any:
            self._blind -= 1
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
            result = self._joined(result)
            _when_reached(result, lambda g: emit(inputs, g))
            return result

        def emit(inputs: Any, g: Tensor) -> None:
            with torch._C.DisableTorchFunction():
                for name, block in rule(module, inputs, g).items():
                    if name not in own:
                        continue
                    if isinstance(block, Tensor) and block.shape != (self._examples, *own[name].shape):
                        raise ValueError(
                            f"the rule of {type(module).__name__} returned gradients of {name!r} of shape "
                            f"{tuple(block.shape)}, expected {(self._examples, *own[name].shape)}; let the rule "
                            "return one gradient for each example"
                        )
                    self._emit_root(self._roots[id(own[name])], block, 0)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _own(self, module: nn.Module) -> dict[str, Tensor]:
        """The watched parameters of a module that is about to run."""
        return {name: p for name, p in module.named_parameters() if id(p) in self._roots}

    def backward(self, outputs: Tensor) -> list[str]:
        """Run the backward pass of Σ outputs; returns the names of the parameters that autograd reached."""
        names = [name for name, p in self._parameters.items() if p.requires_grad]
        if not outputs.requires_grad:
            return []
        sources = (self._anchor, *(self._parameters[name] for name in names))
        # What torch.autograd.grad calls. That one would leave this mode, under which activations that were
        # checkpointed have to be computed again.
        _, *reached = _engine_run_backward(
            (outputs,),
            (torch.ones_like(outputs),),
            False,
            False,
            sources,
            allow_unreachable=True,
            accumulate_grad=False,
        )
        return [name for name, gradient in zip(names, reached, strict=True) if gradient is not None]


def _when_reached(result: Tensor, hook: Callable[[Tensor], None]) -> None:
    """Call `hook` with the gradient of a result, after the result's own hooks: they may change it, and FSDP's gather
    what `hook` needs."""
    position = result.output_nr

    def before(grads: tuple[Tensor | None, ...]) -> None:
        g = grads[position]
        if g is not None:
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
