"""One call for the common case."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor, nn
from tqdm.auto import tqdm

from trak import batches
from trak.attribution import StoredAttribution
from trak.batches import Batch
from trak.checkpoints import Checkpoint, loadable
from trak.distributed import dealt
from trak.loaders import count_examples
from trak.ranks import rank
from trak.store.location import Location
from trak.tasks import Task
from trak.traker import TRAKer


def attribute(
    model: nn.Module,
    task: Task | str | Any,
    checkpoints: Checkpoint | Sequence[Checkpoint],
    train: Iterable[Batch],
    targets: Iterable[Batch],
    save_dir: Location = "./trak_results",
    *,
    exp_name: str = "targets",
    train_set_size: int | None = None,
    num_targets: int | None = None,
    index_key: str | int | None = None,
    progress: bool = True,
    **options: Any,
) -> StoredAttribution:
    """Attribute a model's outputs on `targets` to the examples of `train`.

    Args:
        model: the model; its weights, modes, flags and hooks are as found when the call returns.
        task: a task or its name, see `trak.tasks.TASKS`.
        checkpoints: state dicts, paths to them, modules or functions that return one; one or
            several. Each should come from a training run of its own on `train`; more are better.
        train: yields the training batches in the same order on every pass: a DataLoader without
            shuffling, a list, or anything that can be iterated again.
        targets: yields the batches whose outputs are attributed, likewise.
        save_dir: directory or URL of the feature store. What is there already is not done again.
        exp_name: name under which the targets are stored.
        train_set_size, num_targets: number of examples, if the loaders can't tell without a pass.
        index_key: key or position of the field that holds each example's index, if batches carry
            one; it is left out of what the task sees, and loaders may then shuffle.
        progress: whether to show a progress bar.
        options: of `TRAKer`: proj_dim, projector, damping, weighting, grad_wrt, device, ...

    Returns:
        The attribution; scores are computed when asked for.

    Raises:
        ValueError, TypeError: for what can't be attributed; the message says why and what to do.
    """
    n = count_examples(train, "train", train_set_size, index_key)
    m = count_examples(targets, "targets", num_targets, index_key)
    with loadable(model, checkpoints) as several:
        traker = TRAKer(model, task, n, save_dir, **options)
        bar = tqdm(total=len(several) * (n + m), desc="featurizing", unit="ex", disable=not progress or rank() > 0)
        with bar, traker.overlapped():
            for model_id, checkpoint in enumerate(several):
                traker.load_checkpoint(checkpoint, model_id)
                if not traker.agreed(traker.store.is_finalized(model_id, traker.weighting)):
                    if index_key is None and traker.shares_batches:
                        given = dealt(train, traker.store.table(model_id), traker.store.claims, bar.update)
                    else:
                        given = _indexed(train, index_key)
                    _each(traker.featurize, given, bar)
                    traker.finalize_features([model_id])
                else:
                    # Enough to notice other data, or code that changed.
                    bar.update(n - _each(traker.featurize, _indexed(islice(train, 1), index_key), bar))
                traker.start_scoring_checkpoint(exp_name, checkpoint, model_id, m)
                _each(traker.score, _indexed(targets, index_key), bar)
    return traker.attribution(exp_name, range(len(several)))


def _indexed(loader: Iterable[Batch], index_key: str | int | None) -> Iterator[tuple[Batch, np.ndarray | None]]:
    """The batches, each with its examples' indices, or None where they come in order."""
    return (_split(batch, index_key) if index_key is not None else (batch, None) for batch in loader)


def _each(consume: Any, given: Iterable[tuple[Batch, np.ndarray | None]], bar: Any) -> int:
    """Feed the batches; returns the number of examples."""
    count = 0
    for batch, indices in given:
        consume(batch, inds=indices)
        bar.update(batches.size(batch))
        count += batches.size(batch)
    return count


def _split(batch: Batch, index_key: str | int) -> tuple[Batch, np.ndarray]:
    try:
        if isinstance(batch, Mapping):
            rest: Batch = {key: value for key, value in batch.items() if key != index_key}
            indices = batch[index_key]
        else:
            members = list(batch)
            indices = members.pop(index_key)  # type: ignore[arg-type]
            rest = tuple(members)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"index_key={index_key!r} names no field of the batches ({type(batch).__name__})") from error
    return rest, np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices)
