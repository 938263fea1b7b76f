"""Attribution by tasks on a Ray cluster."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trak.attribution.results import StoredAttribution
from trak.attribution.traker import TRAKer
from trak.distributed.packing import Packed
from trak.distributed.ray_pool import Pool, Ray
from trak.inputs.checkpoints import Checkpoint, load_state
from trak.inputs.fsdp import is_sharded
from trak.inputs.numbered_batches import NumberedBatches, numbered_batches
from trak.store import Table
from trak.store.location import Location, display_name, exists, local_root

_TASKS_EACH = 4
"""Into how many tasks for each worker a checkpoint's work is cut, so that all end at nearly the same time."""
_CURE = "keep what can't be (open files, locks, a lambda's surroundings) out of them, or use torchrun"


@dataclass
class Job:
    """What every task needs; it is unpacked once in each process, which then goes on with what it has."""

    model: nn.Module
    task: Any
    train: Any
    targets: Any
    train_set_size: int
    num_targets: int
    index_key: str | int | None
    save_dir: Location
    exp_name: str
    options: dict[str, Any]
    """Of `TRAKer`."""
    _loaded: tuple[int, bool] | None = None

    @cached_property
    def batches(self) -> list[NumberedBatches]:
        """Those of the training set, and those of the targets."""
        found: list[NumberedBatches] = []
        for name, size in (("train", self.train_set_size), ("targets", self.num_targets)):
            loader = getattr(self, name)
            known = numbered_batches(loader, size, self.index_key)
            if known is None:
                raise TypeError(
                    f"{name} is {type(loader).__name__}, whose batches can't be loaded one by one on other machines, "
                    "as engine=Ray needs; pass a list of batches, or a DataLoader over a map-style data set, without "
                    "a sampler and with shuffle=False"
                )
            found.append(known)
        return found

    @cached_property
    def traker(self) -> TRAKer:
        """This process's."""
        if not exists(self.save_dir):
            raise FileNotFoundError(
                f"save_dir {display_name(self.save_dir)} is not there on a machine of the cluster; use a directory "
                "that all of them see under this name, or an object store (s3://, gs://)"
            )
        return TRAKer(self.model, self.task, self.train_set_size, self.save_dir, **self.options)

    def load(self, model_id: int, weights: Packed, of_targets: bool) -> TRAKer:
        """This process's TRAKer, ready for a checkpoint's training examples or targets."""
        if self._loaded != (model_id, of_targets):
            self._loaded = None
            if of_targets:
                self.traker.start_scoring_checkpoint(self.exp_name, weights.unpack(), model_id, self.num_targets)
            else:
                self.traker.load_checkpoint(weights.unpack(), model_id)
            self._loaded = model_id, of_targets
        return self.traker


def attribute_on(engine: Ray, job: Job, checkpoints: list[Checkpoint], bar: Any) -> StoredAttribution:
    """What `trak.attribute` does, by tasks, with a progress bar over all examples of all checkpoints."""
    if is_sharded(job.model):
        raise ValueError(
            f"each task of engine=Ray needs the whole model, and {type(job.model).__name__} is sharded; use torchrun "
            "for it"
        )
    root = local_root(job.save_dir)
    job = replace(job, save_dir=job.save_dir if root is None else root.absolute())
    options, device = {**job.options, "engine": engine.engine}, job.options.get("device")
    trained, asked = job.batches
    # Made here, so that what can't be is said at once.
    traker = TRAKer(job.model, job.task, job.train_set_size, job.save_dir, **{**options, "device": "cpu"})
    store, pool = traker.store, Pool(engine)
    options["device"] = device or ("cuda" if engine.num_gpus_per_worker else "cpu")
    sent = pool.put(Packed.of(replace(job, options=options), "model, task, train or targets", _CURE))
    weights = [pool.put(Packed.of(_portable(one), f"checkpoint {i}", _CURE)) for i, one in enumerate(checkpoints)]
    left = Counter[int]()

    def add_train(model_id: int) -> None:
        groups = [] if traker.is_finalized(model_id) else _groups(trained, store.table(model_id), pool.slots())
        bar.update(job.train_set_size - sum(examples for _, examples in groups))
        left[model_id] = len(groups)
        for numbers, examples in groups:
            ended = add_finalize, model_id, examples
            pool.add(ended, _featurize, sent, weights[model_id], model_id, False, numbers)
        if not groups:
            add_targets(model_id)

    def add_finalize(model_id: int) -> None:
        left[model_id] -= 1
        if not left[model_id]:
            pool.add((add_targets, model_id, 0), _finalize, sent, model_id, first=True)

    def add_targets(model_id: int) -> None:
        for numbers, examples in _groups(asked, None, pool.slots()):
            ended = None, model_id, examples
            pool.add(ended, _featurize, sent, weights[model_id], model_id, True, numbers, first=True)

    for model_id, one in enumerate(weights):
        pool.add((add_train, model_id, 0), _begin, sent, one, model_id)
    for (add_next, model_id, examples), _ in pool:
        bar.update(examples)
        if add_next is not None:
            add_next(model_id)
    attribution = traker.attribution(job.exp_name, range(len(checkpoints)))
    attribution.settle_damping()
    return StoredAttribution(attribution.experiment, attribution.model_ids, traker.scoring, "cpu", engine)


def _portable(checkpoint: Checkpoint) -> Checkpoint:
    """What other machines can load, which may have no GPU and work in other directories."""
    if isinstance(checkpoint, str | Path):
        return Path(checkpoint).expanduser().absolute()
    if isinstance(checkpoint, nn.Module | Mapping):
        state = load_state(checkpoint)
        return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in state.items()}
    return checkpoint


def _groups(known: NumberedBatches, table: Table | None, workers: int) -> list[tuple[list[int], int]]:
    """Numbers of the batches of each task, and of how many examples they are: neighbours, so that tasks seldom share a
    chunk. Batches that are done are left out, but for the first, by which it is noticed if data or code changed."""
    numbers, size = list(range(len(known.indices))), 1 << 62
    if table is not None:
        done = table.is_done()
        numbers = [number for number in numbers if number == 0 or not done[known.indices[number]].all()]
        size = table.features.chunk_rows
    rows = sum(len(known.indices[number]) for number in numbers)
    size = min(size, max(1, rows // (_TASKS_EACH * workers)))
    groups: list[tuple[list[int], int]] = []
    for number in numbers:
        count = len(known.indices[number])
        if groups and groups[-1][1] + count <= size and groups[-1][0][-1] == number - 1:
            groups[-1] = [*groups[-1][0], number], groups[-1][1] + count
        else:
            groups.append(([number], count))
    return groups


def _begin(packed: Packed, weights: Packed, model_id: int) -> None:
    """Check a checkpoint and make its table; of one that is finalized, also notice other data, or code that changed."""
    job: Job = packed.unpack()
    traker = job.load(model_id, weights, False)
    if traker.is_finalized(model_id):
        _featurize(packed, weights, model_id, False, [0])


def _featurize(packed: Packed, weights: Packed, model_id: int, of_targets: bool, numbers: list[int]) -> None:
    """Some batches of the training set, or of the targets."""
    job: Job = packed.unpack()
    traker, known = job.load(model_id, weights, of_targets), job.batches[of_targets]
    featurize = traker.score if of_targets else traker.featurize
    with traker.overlapped():
        for number, batch in zip(numbers, known.load(iter(numbers)), strict=True):
            featurize(batch, inds=known.indices[number])
        traker.drain()


def _finalize(packed: Packed, model_id: int) -> None:
    packed.unpack().traker.finalize_features([model_id])
