"""The state a model must be in to be differentiated, and its way back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import Tensor, nn

from trak._utils.messages import suggest
from trak.inputs.fsdp import reshard
from trak.inputs.modes import eval_mode, without_dropout


@contextmanager
def differentiable(model: nn.Module, parameters: Sequence[str]) -> Iterator[None]:
    """Evaluation mode, or what does the same, gradients for just `parameters`; every flag is as it was on leaving, and
    a sharded model in parts."""
    reshard(model)  # which then gathers with the flags that are set here
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    wanted = set(parameters)
    with eval_mode(model), without_dropout(model):
        try:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name in wanted)
            yield
        finally:
            reshard(model)
            for parameter, flag in flags:
                parameter.requires_grad_(flag)


def select_parameters(model: nn.Module, grad_wrt: object = None) -> Mapping[str, Tensor]:
    """The parameters to differentiate by, in the model's order.

    Args:
        model: the model; a parameter shared by several modules counts once, by its first name.
        grad_wrt: None for all that require gradients; or a name, or several, of parameters, where
            `*` and `?` stand for any characters. Named parameters need not require gradients.

    Raises:
        ValueError: if nothing is left, or a name matches no parameter.
    """
    own = dict(model.named_parameters())
    if grad_wrt is None:
        chosen = {name: p for name, p in own.items() if p.requires_grad}
        if not chosen:
            raise ValueError(
                f"the model ({type(model).__name__}) has no trainable parameter: none of its {len(own)} parameters "
                "requires gradients; call requires_grad_(True) on those that were trained, or name them in grad_wrt"
            )
    else:
        if not isinstance(grad_wrt, Iterable):
            raise TypeError(
                f"grad_wrt must be a parameter name or a list of them, got {grad_wrt!r:.40}; use names of "
                "model.named_parameters()"
            )
        patterns = [grad_wrt] if isinstance(grad_wrt, str) else list(grad_wrt)
        # A parameter shared by several modules may be named by any of them.
        first = {id(p): name for name, p in own.items()}
        alias = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
        named: set[str] = set()
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise TypeError(
                    f"grad_wrt must hold parameter names, got {pattern!r:.40}; use names of model.named_parameters()"
                )
            matching = {own_name for name, own_name in alias.items() if fnmatchcase(name, pattern)}
            if not matching:
                raise ValueError(f"grad_wrt names {pattern!r}, which no parameter matches: {suggest(pattern, alias)}")
            named |= matching
        chosen = {name: p for name, p in own.items() if name in named}
        if not chosen:
            raise ValueError("grad_wrt is empty: name at least one parameter, or leave it out for all")
    for name, parameter in chosen.items():
        if not parameter.is_floating_point():
            raise ValueError(
                f"parameter {name!r} is {parameter.dtype}, expected a real floating-point type; leave it out"
            )
    return chosen
