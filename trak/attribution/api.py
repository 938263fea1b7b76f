"""One call for the common case."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from trak._utils.ranks import rank, world_size
from trak.attribution.ray import Job, attribute_on
from trak.attribution.results import StoredAttribution
from trak.attribution.traker import TRAKer
from trak.distributed import Ray
from trak.gradients import MEMORY_BUDGET
from trak.inputs.batches import Batch
from trak.inputs.checkpoints import Checkpoint, preserve_weights
from trak.inputs.datasets import as_loader
from trak.inputs.loaders import count_examples, warn_if_random
from trak.inputs.wrappers import unwrap_model
from trak.projectors import Projector
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
    proj_dim: int = 2048,
    projector: Projector | str | None = None,
    projector_seed: int = 0,
    grad_wrt: str | Iterable[str] | None = None,
    engine: str | Ray = "auto",
    damping: float | str | None = None,
    lambda_reg: float | None = None,
    weighting: str = "ggn",
    normalize_checkpoints: bool = True,
    loss_temperature: float | None = None,
    dtype: str | None = None,
    device: str | Any | None = None,
    memory_budget: int = MEMORY_BUDGET,
    logging_level: int | str | None = None,
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
        save_dir: directory or URL of the feature store. Completed rows are skipped; a single process
            compares all of `train` with them, while `Attribution.open` needs no data.
        exp_name: name under which the targets are stored.
        train_set_size, num_targets: number of examples, if the loaders can't tell without a pass.
        index_key: key or position of the field that holds each example's index, if batches carry
            one; it is left out of what the task sees, and loaders may then shuffle.
        batch_size: examples of a batch of data sets, 32 by default; loaders and lists have their own.
        collate_fn: of data sets: makes a batch of a list of examples, or is a tokenizer, which pads them; see
            `trak.inputs.datasets.as_loader`.
        progress: whether to show a progress bar.
        proj_dim: number of features k.
        projector: how gradients are projected: "sketch" (the default), "rademacher", "gaussian", "identity" or an
            instance.
        projector_seed: seed of the projection.
        grad_wrt: parameters to differentiate by, `*` allowed; by default all that require gradients.
        engine: how gradients are computed: "auto", "hooks", "functional" or "loop"; or a `trak.distributed.Ray`, to
            work on a cluster.
        damping: λ relative to trace(K)/k, or "auto" (the default), see `trak.scoring.auto_damping`.
        lambda_reg: absolute λ; excludes `damping`.
        weighting: "ggn" or "identity", see `trak.scoring.gram`.
        normalize_checkpoints: whether every checkpoint has equal weight in a target's scores.
        loss_temperature: temperature of the loss whose derivatives weigh the examples; 3 by default.
        dtype: of the stored features: "float32" (the default), "float16" or "int8".
        device: where to compute; by default CUDA if available.
        memory_budget: bytes that gradients and activations may take.
        logging_level: level of the logger "trak"; by default it is left alone.

    Returns:
        The attribution; scores are computed when asked for. Damping, weighting and normalisation are recorded in the
        store, so that `Attribution.open` and the command line give the same scores.

    Raises:
        ValueError, TypeError: for what can't be attributed; the message says why and what to do.
        ConfigMismatchError: if `save_dir` was made with other settings.
        CheckpointMismatchError: if it was made with other checkpoints.

    Example:
        >>> import torch, trak
        >>> from zarr.storage import MemoryStore
        >>> model, batch = torch.nn.Linear(3, 2), (torch.randn(8, 3), torch.arange(8) % 2)
        >>> attribution = trak.attribute(
        ...     model, "classification", model.state_dict(), train=[batch], targets=[batch], save_dir=MemoryStore(),
        ...     proj_dim=16, progress=False,
        ... )
        >>> attribution.top(3).indices.shape
        (8, 3)
    """
    options: dict[str, Any] = {
        "proj_dim": proj_dim,
        "projector": projector,
        "projector_seed": projector_seed,
        "grad_wrt": grad_wrt,
        "damping": damping,
        "lambda_reg": lambda_reg,
        "weighting": weighting,
        "normalize_checkpoints": normalize_checkpoints,
        "loss_temperature": loss_temperature,
        "dtype": dtype,
        "device": device,
        "memory_budget": memory_budget,
        "logging_level": logging_level,
    }
    model = unwrap_model(model)
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
    if rank() == 0 and not isinstance(engine, Ray):  # where workers read
        warn_if_random(train, "train")
        warn_if_random(targets, "targets")
    with (
        preserve_weights(model, checkpoints) as several,
        tqdm(total=len(several) * (n + m), desc="featurizing", unit="ex", disable=not progress or rank() > 0) as bar,
    ):
        if isinstance(engine, Ray):
            job = Job(model, task, train, targets, n, m, index_key, save_dir, exp_name, options)
            return attribute_on(engine, job, several, bar)
        traker = TRAKer(model, task, n, save_dir, engine=engine, **options)
        scheduler, compared = traker.scheduler, False
        with traker.overlapped():
            for model_id, checkpoint in enumerate(several):
                traker.load_checkpoint(checkpoint, model_id)
                session = traker.session
                if not scheduler.broadcast_decision(traker.is_finalized(model_id)):
                    scheduler.run(session, session.training, train, index_key, bar.update)
                    traker.finalize_features([model_id])
                else:
                    # One batch tells whether code has changed, all of them whether data has. Several processes, which
                    # would each have to read all of it, compare their first alone.
                    again = list(islice(train, 1)) if compared or world_size() > 1 else train
                    before = bar.n
                    scheduler.run(session, session.training, again, index_key, bar.update, share=False)
                    bar.update(n - (bar.n - before))
                compared = True
                traker.start_scoring_checkpoint(exp_name, checkpoint, model_id, m)
                session = traker.session
                assert session.targets is not None
                scheduler.run(session, session.targets, targets, index_key, bar.update, share=False)
    attribution = traker.attribution(exp_name, range(len(several)))
    attribution.settle_damping()
    return attribution
