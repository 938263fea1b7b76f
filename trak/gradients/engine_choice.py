"""Which engine a model gets, and the check that it is right."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from trak._utils.messages import abbreviate, first_line, suggest
from trak.gradients.base import Engine, check_output, collect
from trak.gradients.featurize import MEMORY_BUDGET
from trak.gradients.fsdp import ShardedHooksEngine, ShardedLoopEngine
from trak.gradients.functional import FunctionalEngine
from trak.gradients.hooks import HooksEngine
from trak.gradients.layers import UnsupportedParameterError
from trak.gradients.loop import LoopEngine
from trak.gradients.mixed import MixedEngine
from trak.gradients.verification import disagreeing, misassigned, sketched, tolerance
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.fsdp import is_sharded
from trak.tasks import Task

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (HooksEngine, FunctionalEngine, LoopEngine)}
Gather = Callable[[Engine, Batch], dict[str, Tensor]]

logger = logging.getLogger("trak")


def check_engine_name(name: str, model: nn.Module | None = None) -> str:
    """The name, if it is "auto" or that of an engine, for `model` if that is given.

    Raises:
        ValueError: otherwise.
    """
    if model is not None and name in ENGINES and name != HooksEngine.name and is_sharded(model):
        raise ValueError(
            f"engine={name!r} needs all of the model on every rank, and this one is sharded by fully_shard; "
            "use engine='layers' or 'auto'"
        )
    if name != "auto" and name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}: {suggest(str(name), ['auto', *ENGINES])}")
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
    """The engine for a model whose state is that of `differentiable`.

    "auto" compares engines with single-example autograd on the batch's first two examples, and with autograd of a
    weighted sum on up to 16 that fit in `memory_budget` bytes, and takes for each parameter the first that is right
    of: layers, functional, single. It warns if it must take the last, and says in one line what it took. An engine
    asked for by name is taken whatever the comparison says; it warns where they disagree. Warnings in `said` are not
    given again, and those given are added.

    Raises:
        ValueError: if the model gives an example another output the second time, or without the other
            examples of its batch.
    """
    few, warned = batches.take(batch, 0, 2), set() if warned is None else warned
    check_repeatable(model, task, few)
    check_independent(model, task, few)
    if is_sharded(model):
        return _layers_of_sharded(name, model, task, parameters, few)
    tolerances = {name: tolerance(parameter) for name, parameter in model.named_parameters()}
    if name != "auto":
        return _compared(ENGINES[name](model, task, parameters), batch, memory_budget, tolerances, warned)
    truth = collect(LoopEngine(model, task, parameters), few)
    chosen: list[Engine] = []
    left, reason = tuple(parameters), ""
    for kind in (HooksEngine, FunctionalEngine):
        wrong, reason = _wrong(kind, model, task, left, few, truth, tolerances)
        right = tuple(name for name in left if name not in wrong)
        if right and _mixed_up(kind(model, task, right), batch, memory_budget):
            # Where some are noticed, others may be as wrong.
            right, wrong, reason = (), left, f"the {kind.name} engine mixes up the examples of a batch"
        if right:
            chosen.append(kind(model, task, right))
        left = tuple(wrong)
        if not left:
            break
        logger.info("engine %s: not for %s: %s", kind.name, some(left), reason)
    if left:
        chosen.append(LoopEngine(model, task, left))
        # An exception's own words, which the log has, read like an error of the data.
        _warn(
            f"gradients of {_owners(model, left)} are computed one example at a time, which is exact but slower: "
            f"{reason.partition(' (')[0]}; to be faster leave these parameters out by grad_wrt (scores then say "
            "nothing of what they learnt), or write a rule, see trak.gradients.register_layer",
            warned,
        )
    logger.info(
        "engine: %s, equal to single-example autograd on the first batch",
        ", ".join(f"{engine.name} for {len(engine.parameters)} parameters" for engine in chosen),
    )
    engine, *others = chosen
    for other in others:
        engine = MixedEngine(engine, other)
    return engine


def _warn(message: str, warned: set[str], stacklevel: int = 3) -> None:
    if message not in warned:
        warned.add(message)
        warnings.warn(message, stacklevel=stacklevel)


def _compared(
    engine: Engine, batch: Batch, memory_budget: int, tolerances: Mapping[str, float], warned: set[str]
) -> Engine:
    """The engine, with a warning if it disagrees with single-example autograd."""
    if isinstance(engine, LoopEngine):
        return engine
    few = batches.take(batch, 0, 2)
    found = sketched(engine, few)  # a large model's gradients of two examples may not fit
    try:
        truth = sketched(LoopEngine(engine.model, engine.task, engine.parameters), few)
    except torch.OutOfMemoryError:
        logger.info("engine %s: not compared with single-example autograd, for want of memory", engine.name)
        return engine
    wrong = disagreeing(found, truth, tolerances) or _mixed_up(engine, batch, memory_budget)
    if wrong:
        _warn(
            f"gradients of {some(wrong)} by engine={engine.name!r} disagree with single-example autograd, and the "
            "scores are as wrong; use engine='auto', or mend the rule if the layer has one of "
            "trak.gradients.register_layer",
            warned,
            stacklevel=4,
        )
    return engine


def _layers_of_sharded(name: str, model: nn.Module, task: Task, parameters: Sequence[str], few: Batch) -> Engine:
    """The one engine for sharded models, compared with single-example autograd unless it was asked for by name."""
    if name == "auto":
        single = ShardedLoopEngine(model, task, parameters)
        truth = sketched(single, few)
        # What FSDP's mixed precision computes in.
        largest = max(map(tolerance, single.gathered.parameters.values()))
        tolerances = dict.fromkeys(parameters, largest)
        wrong, reason = _wrong(ShardedHooksEngine, model, task, parameters, few, truth, tolerances, sketched)
        if wrong:
            raise ValueError(
                f"gradients of {some(wrong)} can't be had of a sharded model: {reason}, and there is no other engine "
                "for one; leave them out with grad_wrt, or register the layer with trak.gradients.register_layer"
            )
        logger.info("engine: layers for %d parameters, equal to single-example autograd", len(parameters))
    return ShardedHooksEngine(model, task, parameters)


def _wrong(
    kind: type[Engine],
    model: nn.Module,
    task: Task,
    names: Sequence[str],
    few: Batch,
    truth: dict[str, Tensor],
    tolerances: Mapping[str, float],
    gather: Gather = collect,
) -> tuple[Sequence[str], str]:
    """The parameters whose gradients an engine gets wrong or not at all, and why."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch.vmap says of models it won't be used for
            found, uncovered = _collected(kind(model, task, names), few, gather)
    except Exception as error:  # whatever an engine can't do, plain autograd just did
        what = f"{type(error).__name__}: {first_line(error)}"
        return names, f"the {kind.name} engine can't run this model ({what})"
    differ = disagreeing(found, truth, tolerances)
    wrong = [name for name in names if name in uncovered or name in differ]
    if not wrong:
        return wrong, ""
    why = "has no rule for how it is used" if set(wrong) == set(uncovered) else "disagrees with single-example autograd"
    return wrong, f"the {kind.name} engine {why}"


def _mixed_up(engine: Engine, batch: Batch, memory_budget: int) -> Sequence[str]:
    """As of `misassigned`; all parameters if the engine can't do for more examples what it did for two."""
    try:
        return misassigned(engine, batch, memory_budget)
    except Exception:  # plain autograd just did it
        return engine.parameters


def _collected(engine: Engine, batch: Batch, gather: Gather) -> tuple[dict[str, Tensor], Sequence[str]]:
    try:
        return gather(engine, batch), ()
    except UnsupportedParameterError as error:
        covered = tuple(name for name in engine.parameters if name not in error.names)
        return (gather(type(engine)(engine.model, engine.task, covered), batch) if covered else {}), error.names


def _owners(model: nn.Module, parameters: Sequence[str]) -> str:
    """The modules that have parameters, each with how many of them, the first few of many."""
    counts = Counter(name.rpartition(".")[0] for name in parameters)
    shown = [f"{_module(model, name)} ({n} parameter{'s' if n > 1 else ''})" for name, n in counts.items()]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more modules" if len(shown) > 3 else "")


def some(names: Sequence[str]) -> str:
    """The first two names, and how many more there are."""
    return abbreviate(list(map(repr, names)), 2)


def check_repeatable(model: nn.Module, task: Task, batch: Batch) -> None:
    """Raise a ValueError naming the first module whose result changes when the same batch comes again."""
    with torch.no_grad():
        outputs = [check_output(task, task.output(model, batch), batches.size(batch)) for _ in range(2)]
        if _same(*outputs):
            return
        pairs = zip(*(_results(model, task, batch) for _ in range(2)), strict=False)
    name = next((a[0] for a, b in pairs if not _same(a[1], b[1])), None)
    raise ValueError(
        f"{_kind(model, task, name)} gives another result when the same batch comes again, though the model is in "
        "evaluation mode: dropout called with training=True, or other randomness; make it deterministic"
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
            raise ValueError(
                f"the model can't run on one example alone ({error}), so that none has a gradient of its own; let "
                "normalizations use running statistics (track_running_stats=True, eval()), or use GroupNorm"
            ) from error
        if _same(together, alone, 1e-2):
            return
        pairs = zip(_results(model, task, batch), _results(model, task, first), strict=False)
    name = next((a[0] for a, b in pairs if not _same(a[1][: len(b[1])], b[1], 1e-2)), None)
    raise ValueError(
        f"{_kind(model, task, name)} gives an example another result without the other examples of its batch, so that "
        "none has a gradient of its own; let normalizations use running statistics (track_running_stats=True, eval()), "
        "or use GroupNorm"
    )


def _kind(model: nn.Module, task: Task, name: str | None) -> str:
    """A module in words, or what the task makes of the same tensors."""
    if name is None:
        return f"the output f of {type(task).__name__}, with the same tensors from every module,"
    return _module(model, name)


def _module(model: nn.Module, name: str) -> str:
    return type(model.get_submodule(name)).__name__ + (f" {name!r}" if name else "")


def _results(model: nn.Module, task: Task, batch: Batch) -> list[tuple[str, Tensor]]:
    """What each module returned, in order, by its name."""
    found: list[tuple[str, Tensor]] = []

    def note(name: str, result: object) -> None:
        if isinstance(result, Tensor):
            found.append((name, result.clone()))

    handles = [
        module.register_forward_hook(lambda _module, _args, result, name=name: note(name, result))
        for name, module in model.named_modules()
    ]
    try:
        task.output(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _same(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    """Up to what the order of a parallel sum, or with more tolerance half precision, may change."""
    return a.shape == b.shape and torch.allclose(
        a.double(), b.double(), rtol=tolerance, atol=tolerance / 100, equal_nan=True
    )
