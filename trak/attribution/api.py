"""One call for the common case."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from trak._utils.messages import suggest
from trak._utils.ranks import rank, world_size
from trak.attribution.ray import Job, attribute_on
from trak.attribution.results import StoredAttribution
from trak.attribution.traker import TRAKer
from trak.distributed import Ray, iter_unclaimed
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.checkpoints import Checkpoint, preserve_weights
from trak.inputs.datasets import as_loader
from trak.inputs.indices import iter_with_indices
from trak.inputs.loaders import count_examples, warn_if_random
from trak.inputs.wrappers import unwrap_model
from trak.store.location import Location
from trak.tasks import Task


def attribute(
    model: nn.Module,
    task: Task | str | Any,
    checkpoints: Checkpoint | Sequence[Checkpoint],
    train: Iterable[Batch] | Dataset[Any],
    targets: Iterable[Batch] | Dataset[Any],
    save_dir: Location = "./trak_results",
    *,
    exp_name: str = "targets",
    train_set_size: int | None = None,
    num_targets: int | None = None,
    index_key: str | int | None = None,
    batch_size: int | None = None,
    collate_fn: Callable[..., Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> StoredAttribution:
    """Attribute a model's outputs on `targets` to the examples of `train`.

    Args:
        model: the model, bare or as accelerate, `DistributedDataParallel` or `torch.compile` return it; its weights,
            modes, flags and hooks are as found when the call returns.
        task: a task or its name, see `trak.tasks.TASKS`.
        checkpoints: state dicts, paths to them, modules or functions that return one; one or
            several. Each should come from a training run of its own on `train`; more are better.
        train: yields the training batches in the same order on every pass: a DataLoader without
            shuffling, a list, or anything that can be iterated again. Or a data set: a `datasets.Dataset`, of
            which columns are kept as by transformers' Trainer, or a map-style one of torch.
        targets: yields the batches whose outputs are attributed, likewise.
        save_dir: directory or URL of the feature store. What is there already is not done again; a single process
            compares all of `train` with it, while `Attribution.open` needs no data.
        exp_name: name under which the targets are stored.
        train_set_size, num_targets: number of examples, if the loaders can't tell without a pass.
        index_key: key or position of the field that holds each example's index, if batches carry
            one; it is left out of what the task sees, and loaders may then shuffle.
        batch_size: examples of a batch of data sets, 32 by default; loaders and lists have their own.
        collate_fn: of data sets: makes a batch of a list of examples, or is a tokenizer, which pads them; see
            `trak.inputs.datasets.as_loader`.
        progress: whether to show a progress bar.
        options: of `TRAKer`, which says more of each:

            - proj_dim: number of features, 2048
            - projector: how gradients are projected, "sketch"
            - projector_seed: of the projection, 0
            - grad_wrt: parameters to differentiate by, all
            - engine: how gradients are computed, "auto"; or a `trak.distributed.Ray`, to work on a cluster
            - damping: relative strength of regularisation, "auto"
            - lambda_reg: the same, absolute
            - weighting: of training examples, "ggn"
            - normalize_checkpoints: checkpoints count the same, True
            - loss_temperature: temperature of the weights, 3
            - dtype: of stored features, "float32"
            - device: where to compute, CUDA first
            - memory_budget: bytes for gradients, activations
            - logging_level: of the logger "trak", INFO

    Returns:
        The attribution; scores are computed when asked for.

    Raises:
        ValueError, TypeError: for what can't be attributed; the message says why and what to do.
    """
    model = unwrap_model(model)
    for name in options.keys() - inspect.signature(TRAKer).parameters.keys():
        known = {*inspect.signature(TRAKer).parameters, *inspect.signature(attribute).parameters} - {"options"}
        raise TypeError(f"unknown option {name!r}: {suggest(name, known)}")
    as_given = train, targets
    train = as_loader(train, model, "train", batch_size, collate_fn, index_key)
    targets = as_loader(targets, model, "targets", batch_size, collate_fn, index_key)
    if train is as_given[0] and targets is as_given[1] and not (batch_size is None and collate_fn is None):
        raise ValueError(
            f"batch_size={batch_size!r} and collate_fn are for data sets, but train ({type(train).__name__}) and "
            f"targets ({type(targets).__name__}) yield batches already; leave them out"
        )
    n = count_examples(train, "train", train_set_size, index_key)
    m = count_examples(targets, "targets", num_targets, index_key)
    engine, silent = options.get("engine"), not progress or rank() > 0
    if rank() == 0 and not isinstance(engine, Ray):  # where workers read
        warn_if_random(train, "train")
        warn_if_random(targets, "targets")
    with (
        preserve_weights(model, checkpoints) as several,
        tqdm(total=len(several) * (n + m), desc="featurizing", unit="ex", disable=silent) as bar,
    ):
        if isinstance(engine, Ray):
            job = Job(model, task, train, targets, n, m, index_key, save_dir, exp_name, options)
            return attribute_on(engine, job, several, bar)
        traker = TRAKer(model, task, n, save_dir, **options)
        compared = False
        with traker.overlapped():
            for model_id, checkpoint in enumerate(several):
                traker.load_checkpoint(checkpoint, model_id)
                if not traker.agreed(traker.store.is_finalized(model_id, traker.weighting)):
                    given = iter_with_indices(train, index_key)
                    if traker.shares_batches:
                        table, locks = traker.store.table(model_id), traker.store.locks
                        given = iter_unclaimed(train, index_key, table, locks, traker.settle, bar.update)
                    _each(traker.featurize, given, bar)
                    traker.finalize_features([model_id])
                else:
                    # One batch tells whether code has changed, all of them whether data has. Several processes, which
                    # would each have to read all of it, compare their first alone.
                    again = islice(train, 1) if compared or world_size() > 1 else train
                    bar.update(n - _each(traker.featurize, iter_with_indices(again, index_key), bar))
                compared = True
                traker.start_scoring_checkpoint(exp_name, checkpoint, model_id, m)
                _each(traker.score, iter_with_indices(targets, index_key), bar)
    return traker.attribution(exp_name, range(len(several)))


def _each(consume: Any, given: Iterable[tuple[Batch, np.ndarray | None]], bar: Any) -> int:
    """Feed the batches; returns the number of examples."""
    count = 0
    for batch, indices in given:
        consume(batch, inds=indices)
        bar.update(batches.size(batch))
        count += batches.size(batch)
    return count
