"""Which engine a model gets, and the check that it is right."""

import logging
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trak import batches
from trak.batches import Batch
from trak.gradients.base import Engine
from trak.gradients.functional import Functional
from trak.gradients.single import Single
from trak.naming import did_you_mean
from trak.tasks import Task

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Functional, Single)}
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}

logger = logging.getLogger("trak")


def check_engine_name(name: str) -> str:
    """The name, if it is "auto" or an engine's.

    Raises:
        ValueError: otherwise.
    """
    if name != "auto" and name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}: {did_you_mean(str(name), ['auto', *ENGINES])}")
    return name


def choose_engine(name: str, model: nn.Module, task: Task, parameters: Sequence[str], batch: Batch) -> Engine:
    """The engine for a model whose state is that of `differentiable`.

    "auto" tries the functional engine on the batch's first two examples against single-example
    autograd and falls back on the latter, with a warning that says why.
    """
    single = Single(model, task, parameters)
    if name != "auto":
        return ENGINES[name](model, task, parameters)
    few = batches.take(batch, 0, 2)
    truth = _collect(single, few)
    functional = Functional(model, task, parameters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch.vmap says of models it won't be used for
            reason = _disagreement(_collect(functional, few), truth)
    except Exception as error:  # whatever vmap can't do, plain autograd just did
        reason = f"torch.vmap can't run this model ({type(error).__name__}: {str(error).strip().splitlines()[0][:200]})"
    if reason is None:
        logger.info("engine: functional (torch.func), equal to single-example autograd on the first batch")
        return functional
    warnings.warn(f"gradients are computed one example at a time, which is exact but slower: {reason}", stacklevel=2)
    return single


def _collect(engine: Engine, batch: Batch) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    engine.gradients(batch, lambda name, block: found.update({name: block}))
    return found


def _disagreement(found: dict[str, Tensor], truth: dict[str, Tensor]) -> str | None:
    for name, expected in truth.items():
        tolerance = TOLERANCE.get(expected.dtype, 3e-2) * float(expected.norm()) + 1e-12
        error = float((found[name] - expected).norm())
        if error > tolerance:
            return f"torch.vmap's gradient of {name!r} is off by {error:.3g} from single-example autograd"
    return None
