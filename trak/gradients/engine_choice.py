"""The choice of an engine for a model, and its verification."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial, reduce

import torch
from torch import Tensor, nn

from trak._utils.messages import first_line, shorten_names
from trak.gradients.base import ENGINES, Engine, MixedEngine, check_output, collect
from trak.gradients.featurize import MEMORY_BUDGET
from trak.gradients.fsdp import ShardedHooksEngine, ShardedLoopEngine
from trak.gradients.functional import FunctionalEngine
from trak.gradients.hooks import HooksEngine
from trak.gradients.layers import UnsupportedParameterError
from trak.gradients.loop import LoopEngine
from trak.gradients.verification import disagreeing, misassigned, sketch_gradients, tolerance
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.fsdp import is_sharded
from trak.tasks import Task

_DEPENDENT = (
    "so that none has a gradient of its own; let normalizations use running statistics (track_running_stats=True, "
    "eval()), or use GroupNorm"
)

logger = logging.getLogger("trak")


def check_engine_name(name: str, model: nn.Module | None = None) -> str:
    """Return `name` if it is "auto" or the name of an engine that can run `model`.

    Raises:
        ValueError: otherwise.
    """
    if model is not None and name in ENGINES and name != HooksEngine.name and is_sharded(model):
        raise ValueError(
            f"engine={name!r} needs all of the model on every rank, and this one is sharded by fully_shard; "
            "use engine='hooks' or 'auto'"
        )
    if name != "auto":
        ENGINES.find(name, "auto")
    return name


def choose_engine(
    name: str,
    model: nn.Module,
    task: Task,
    parameters: Sequence[str],
    batch: Batch,
    warned: set[str] | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Engine:
    """Choose the engine for a model whose state is that of `differentiable`.

    "auto" compares engines with single-example autograd on the batch's first two examples, and with autograd of a
    weighted sum on up to 16 that fit in `memory_budget` bytes. Each parameter gets the first engine that is right:
    hooks, functional or loop. A warning says if it is the last, and one log line what was chosen. An engine requested
    by name is used even if the comparison fails, with a warning. Warnings in `warned` are not repeated, and new ones
    are added to it.

    Raises:
        ValueError: if the model gives an example another output the second time, or without the other
            examples of its batch.
    """
    two, warned = batches.take(batch, 0, 2), set() if warned is None else warned
    check_repeatable(model, task, two)
    check_independent(model, task, two)
    if is_sharded(model):
        return _choose_for_sharded(name, model, task, parameters, two)
    tolerances = {name: tolerance(parameter) for name, parameter in model.named_parameters()}
    if name != "auto":
        return _compare_with_loop(ENGINES[name](model, task, parameters), batch, memory_budget, tolerances, warned)
    truth = collect(LoopEngine(model, task, parameters), two)
    chosen: list[Engine] = []
    remaining, reason = tuple(parameters), ""
    for kind in (HooksEngine, FunctionalEngine):
        wrong, reason = _wrong_parameters(kind(model, task, remaining), two, truth, tolerances)
        right = tuple(name for name in remaining if name not in wrong)
        if right and _misassigned(kind(model, task, right), batch, memory_budget):
            # Where some are noticed, others may be as wrong.
            right, wrong, reason = (), remaining, f"the {kind.name} engine mixes up the examples of a batch"
        if right:
            chosen.append(kind(model, task, right))
        remaining = tuple(wrong)
        if not remaining:
            break
        logger.info("engine %s: not for %s: %s", kind.name, shorten_names(remaining, 2), reason)
    if remaining:
        chosen.append(LoopEngine(model, task, remaining))
        # An exception's own words, which the log has, read like an error of the data.
        _warn(
            f"gradients of {_describe_modules(model, remaining)} are computed one example at a time, which is exact "
            f"but slower: {reason.partition(' (')[0]}; to be faster leave these parameters out with grad_wrt (scores "
            "then ignore what they learned), or write a rule, see trak.gradients.register_layer",
            warned,
        )
    logger.info(
        "engine: %s, equal to single-example autograd on the first batch",
        ", ".join(f"{engine.name} for {len(engine.parameters)} parameters" for engine in chosen),
    )
    return reduce(MixedEngine, chosen)


def _warn(message: str, warned: set[str], stacklevel: int = 3) -> None:
    if message not in warned:
        warned.add(message)
        warnings.warn(message, stacklevel=stacklevel)


def _compare_with_loop(
    engine: Engine, batch: Batch, memory_budget: int, tolerances: Mapping[str, float], warned: set[str]
) -> Engine:
    """Return the engine, with a warning if it disagrees with single-example autograd."""
    if isinstance(engine, LoopEngine):
        return engine
    two = batches.take(batch, 0, 2)
    found = sketch_gradients(engine, two)  # a large model's gradients of two examples may not fit
    try:
        truth = sketch_gradients(LoopEngine(engine.model, engine.task, engine.parameters), two)
    except torch.OutOfMemoryError:
        logger.info("engine %s: not compared with single-example autograd: out of memory", engine.name)
        return engine
    wrong = disagreeing(found, truth, tolerances) or _misassigned(engine, batch, memory_budget)
    if wrong:
        _warn(
            f"gradients of {shorten_names(wrong, 2)} by engine={engine.name!r} disagree with single-example autograd, "
            "so the scores are wrong, too; use engine='auto', or fix the layer's rule if it has one of "
            "trak.gradients.register_layer",
            warned,
            stacklevel=4,
        )
    return engine


def _choose_for_sharded(name: str, model: nn.Module, task: Task, parameters: Sequence[str], batch: Batch) -> Engine:
    """Return the one engine for sharded models; "auto" compares it with single-example autograd."""
    if name == "auto":
        loop = ShardedLoopEngine(model, task, parameters)
        truth = sketch_gradients(loop, batch)
        # What FSDP's mixed precision computes in.
        largest = max(map(tolerance, loop.gathered.parameters.values()))
        engine, tolerances = ShardedHooksEngine(model, task, parameters), dict.fromkeys(parameters, largest)
        wrong, reason = _wrong_parameters(engine, batch, truth, tolerances, sketch_gradients)
        if wrong:
            raise ValueError(
                f"gradients of {shorten_names(wrong, 2)} cannot be computed for a sharded model: {reason}; leave them "
                "out with grad_wrt, or register the layer with trak.gradients.register_layer"
            )
        logger.info("engine: hooks for %d parameters, equal to single-example autograd", len(parameters))
    return ShardedHooksEngine(model, task, parameters)


def _wrong_parameters(
    engine: Engine,
    batch: Batch,
    truth: dict[str, Tensor],
    tolerances: Mapping[str, float],
    collect_gradients: Callable[[Engine, Batch], dict[str, Tensor]] = collect,
) -> tuple[Sequence[str], str]:
    """Return the parameters whose gradients an engine computes wrong or not at all, and the reason."""
    found, uncovered = dict[str, Tensor](), tuple[str, ...]()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.vmap's, about models that it will not be used for
            try:
                found = collect_gradients(engine, batch)
            except UnsupportedParameterError as error:
                uncovered = error.names
                covered = tuple(name for name in engine.parameters if name not in uncovered)
                if covered:
                    found = collect_gradients(type(engine)(engine.model, engine.task, covered), batch)
    except Exception as error:  # plain autograd just ran this model
        what = f"{type(error).__name__}: {first_line(error)}"
        return engine.parameters, f"the {engine.name} engine can't run this model ({what})"
    differ = disagreeing(found, truth, tolerances)
    wrong = [name for name in engine.parameters if name in uncovered or name in differ]
    if not wrong:
        return wrong, ""
    why = "has no rule for how it is used" if set(wrong) == set(uncovered) else "disagrees with single-example autograd"
    return wrong, f"the {engine.name} engine {why}"


def _misassigned(engine: Engine, batch: Batch, memory_budget: int) -> Sequence[str]:
    """Return what `misassigned` does, or all parameters if the engine fails for more than two examples."""
    try:
        return misassigned(engine, batch, memory_budget)
    except Exception:  # plain autograd just did it
        return engine.parameters


def _describe_modules(model: nn.Module, parameters: Sequence[str]) -> str:
    """Describe the first modules that own these parameters, each with its number of parameters."""
    counts = Counter(name.rpartition(".")[0] for name in parameters)
    shown = [f"{_describe_module(model, name)} ({n} parameter{'s' if n > 1 else ''})" for name, n in counts.items()]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more modules" if len(shown) > 3 else "")


def check_repeatable(model: nn.Module, task: Task, batch: Batch) -> None:
    """Raise a ValueError naming the first module whose result changes when the same batch comes again."""
    with torch.no_grad():
        first, second = (check_output(task, task.output(model, batch), batches.size(batch)) for _ in range(2))
        if _allclose(first, second, 1e-3):
            return
        source = _describe_difference(model, task, batch, batch, 1e-3)
    raise ValueError(
        f"{source} gives another result when the same batch comes again, though the model "
        "is in evaluation mode: dropout called with training=True, or other randomness; make it deterministic"
    )


def check_independent(model: nn.Module, task: Task, batch: Batch) -> None:
    """Raise a ValueError naming the first module whose result for an example depends on the others in its batch."""
    count = batches.size(batch)
    if count == 1:
        return
    first = batches.take(batch, 0, 1)
    with torch.no_grad():
        together = task.output(model, batch)[:1]
        try:
            alone = task.output(model, first)
        except ValueError as error:  # torch's, of normalizations that need several values
            raise ValueError(f"the model can't run on one example alone ({error}), {_DEPENDENT}") from error
        if _allclose(together, alone, 1e-2):
            return
        source = _describe_difference(model, task, batch, first, 1e-2)
    raise ValueError(f"{source} gives an example another result without the other examples of its batch, {_DEPENDENT}")


def _describe_difference(model: nn.Module, task: Task, batch: Batch, first: Batch, tolerance: float) -> str:
    """Describe the first module, or else the task, whose result for `first` is not that for the batch it begins."""
    for (name, found), (_, alone) in zip(
        _module_outputs(model, task, batch), _module_outputs(model, task, first), strict=False
    ):
        if not _allclose(found[: len(alone)] if alone.ndim else found, alone, tolerance):
            return _describe_module(model, name)
    return f"the output f of {type(task).__name__}, with the same tensors from every module,"


def _describe_module(model: nn.Module, name: str) -> str:
    return type(model.get_submodule(name)).__name__ + (f" {name!r}" if name else "")


def _module_outputs(model: nn.Module, task: Task, batch: Batch) -> list[tuple[str, Tensor]]:
    """Return the name and output of each module, in the order of the calls."""
    found: list[tuple[str, Tensor]] = []

    def record(name: str, module: nn.Module, args: object, result: object) -> None:
        if isinstance(result, Tensor):
            found.append((name, result.clone()))

    with ExitStack() as handles:
        for name, module in model.named_modules():
            handles.enter_context(module.register_forward_hook(partial(record, name)))
        task.output(model, batch)
    return found


def _allclose(a: Tensor, b: Tensor, rtol: float) -> bool:
    """Whether two tensors are equal but for rounding, as by the order of a parallel sum."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol, rtol / 100, equal_nan=True)
