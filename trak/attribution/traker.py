"""TRAKer: says in which order batches become features, features scores."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from trak._utils.messages import suggest
from trak._utils.ranks import local_rank, world_size
from trak._utils.validation import check_device, is_number
from trak.attribution.results import StoredAttribution
from trak.distributed.locking import LockingScheduler, PendingBatch
from trak.distributed.lockstep import LockstepScheduler
from trak.gradients import (
    MEMORY_BUDGET,
    EngineSelector,
    check_engine_name,
    check_finite,
    check_memory_budget,
    differentiable,
    featurize,
    select_parameters,
)
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.checkpoints import Checkpoint, load_into
from trak.inputs.failing_batch import describe_failing_batch
from trak.inputs.fsdp import compute_device, is_sharded
from trak.inputs.indices import Indices, row_indices
from trak.inputs.weights import weight_versions
from trak.inputs.wrappers import unwrap_model
from trak.projectors import Projector, make_projector
from trak.scoring import Damping, check_weighting, gram
from trak.store import (
    Experiment,
    FeatureStore,
    RowValues,
    StoreConfig,
    Table,
    Writer,
    check_model_id,
)
from trak.store.location import Location
from trak.tasks import Task, make_task

DEFAULT_LOSS_TEMPERATURE = 3.0
STORED = ("float32", "float16", "int8")
"""Types that features may be stored in."""

logger = logging.getLogger("trak")


def best_device() -> torch.device:
    """CUDA if there is one, else the CPU; of several GPUs the one for this process's rank."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if not local_rank() or torch.cuda.current_device():  # which torch.cuda.set_device chose
        return torch.device("cuda")
    return torch.device("cuda", local_rank() % torch.cuda.device_count())


def _device(given: str | torch.device | None, model: nn.Module, sharded: bool) -> torch.device:
    if not sharded:
        return check_device(given) if given is not None else best_device()
    found = compute_device(model)
    if given is not None and torch.device(given).type != found.type:
        raise ValueError(f"device={str(given)!r}, but the model is sharded on {found}; leave device out")
    return found


class TRAKer:
    """Attributes a model's predictions to its training examples (TRAK; Park et al., ICML 2023).

    For each checkpoint: `load_checkpoint`, `featurize` every training batch, `finalize_features`;
    then `start_scoring_checkpoint`, `score` every target batch; at last `finalize_scores`.
    `trak.attribute` does all of it in one call. Everything is kept in `save_dir`: kill the process
    at any time and run the same script again, and it goes on where it was.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task | str | Any,
        train_set_size: int,
        save_dir: Location = "./trak_results",
        load_from_save_dir: bool = True,
        device: str | torch.device | None = None,
        gradient_computer: Any = None,
        projector: Projector | str | None = None,
        saver: Any = None,
        score_computer: Any = None,
        proj_dim: int = 2048,
        logging_level: int | str = logging.INFO,
        use_half_precision: bool = False,
        proj_max_batch_size: int | None = None,
        projector_seed: int = 0,
        grad_wrt: str | Iterable[str] | None = None,
        lambda_reg: float | None = None,
        *,
        engine: str = "auto",
        damping: float | str | None = None,
        weighting: str = "ggn",
        normalize_checkpoints: bool = True,
        loss_temperature: float | None = None,
        dtype: str | None = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """
        Args:
            model: the model; checkpoints are loaded into it. Of one within `DistributedDataParallel`,
                `torch.compile` or accelerate's mixed precision, what is within.
            task: a task, its name (see `trak.tasks.TASKS`), or one written for traker 0.3.2.
            train_set_size: number n of training examples.
            save_dir: directory or URL (s3://, gs://, memory://) of the feature store.
            device: where to compute; by default CUDA if available. The model is moved there, unless it is sharded.
            projector: "sketch" (the default), "rademacher", "gaussian", "identity" or an instance.
            proj_dim: number k of features.
            logging_level: level of the logger "trak".
            use_half_precision: the same as `dtype="float16"`.
            projector_seed: seed of the projection; checkpoints get independent ones from it.
            grad_wrt: parameters to differentiate by, `*` allowed; by default all that require gradients.
            lambda_reg: absolute λ; excludes `damping`.
            engine: "auto", "hooks", "functional" or "loop", see `trak.gradients`.
            damping: λ relative to trace(K)/k; by default "auto", see `trak.scoring.auto_damping`.
            weighting: "ggn" or "identity", see `trak.scoring.gram`.
            normalize_checkpoints: whether every checkpoint has the same say in a target's scores, see `trak.scoring.Scorer`.
            loss_temperature: T of `trak.tasks.Task.weights_at_temperature`; by default 3, and 1 (as published) for tasks
                written for the published package.
            dtype: of the stored features: "float32" (the default), "float16" or "int8", both with a scale for each row;
                docs/ablations.md has what they cost in faithfulness.
            memory_budget: bytes that gradients and activations may take; larger batches are split.
            load_from_save_dir, gradient_computer, saver, score_computer, proj_max_batch_size:
                accepted for scripts written for traker 0.3.2, where they have no meaning any more.

        Raises:
            ValueError, TypeError: for arguments that can't be, or that `save_dir` was not made with.
            PermissionError: if `save_dir` can't be written to.
        """
        model = unwrap_model(model)
        logger.setLevel(logging_level)
        _warn_obsolete(
            load_from_save_dir=None if load_from_save_dir else "any number of processes may use one save_dir",
            gradient_computer=gradient_computer and "use engine='functional' or 'loop'",
            saver=saver and "use save_dir",
            score_computer=score_computer and "use damping and weighting",
            proj_max_batch_size=proj_max_batch_size and "use memory_budget",
        )
        self.memory_budget = check_memory_budget(memory_budget)
        self._sharded = is_sharded(model)
        self.device = _device(device, model, self._sharded)
        self.model, self.task = model if self._sharded else model.to(self.device), make_task(task)
        self.damping, self.weighting = Damping.make(damping, lambda_reg), check_weighting(weighting)
        self.normalize_checkpoints = bool(normalize_checkpoints)
        self._engine_name = check_engine_name(getattr(gradient_computer, "engine", engine), model)
        self.loss_temperature = _softening(loss_temperature, self.task)
        if isinstance(train_set_size, np.integer):
            train_set_size = int(train_set_size)
        parameters = select_parameters(model, grad_wrt)
        self.parameters = tuple(parameters)
        self.projector = make_projector(projector, proj_dim, projector_seed)
        self.projector.bind({name: p.shape for name, p in parameters.items()})
        self.train_set_size, self.proj_dim = train_set_size, self.projector.proj_dim
        self._writer = Writer()
        self._store = FeatureStore.create(
            save_dir,
            StoreConfig(
                train_set_size=train_set_size,
                proj_dim=self.proj_dim,
                projector=self.projector.describe(),
                dtype=_dtype(dtype, use_half_precision),
                parameters={name: list(p.shape) for name, p in parameters.items()},
                task=self.task.describe(),
                loss_temperature=self.loss_temperature,
            ),
        )
        self._sharing: LockingScheduler | LockstepScheduler = LockingScheduler(self._store.locks, self._compute)
        if self._sharded:
            if not self._store.locks.exclude:
                raise ValueError(
                    f"save_dir {self._store.where} is no directory, and a sharded model's ranks can write side by side "
                    "to a directory only; use one that all of them see"
                )
            self._sharing = LockstepScheduler(self._choose, self._compute, self._values, self._writer.wait)
        self._model_id: int | None = None
        self._table: Table | None = None
        self._experiment: Experiment | None = None
        self._targets: Table | None = None
        self._next_row = self._next_target = 0
        self._versions: list[tuple[int, int]] = []
        self._compared = False
        self._warned: set[str] = set()
        self._replaced: set[str] = set()

    def overlapped(self) -> AbstractContextManager[None]:
        """While entered, `featurize` and `score` return before what they computed is on disk, and write it while the
        next batch is computed. An error of a write raises from the next call, or on leaving.
        """
        return self._writer.overlapped()

    def agreed(self, value: bool) -> bool:
        """The value by which to go on: with a sharded model the first rank's, since all ranks have to take one way."""
        return self._sharing.agreed(value)

    @property
    def shares_batches(self) -> bool:
        """Whether a process may leave batches out that others are at; not with a sharded model."""
        return not self._sharded and world_size() > 1

    @property
    def store(self) -> FeatureStore:
        """What is stored; everything featurized so far is in it."""
        self._writer.wait()
        return self._store

    def load_checkpoint(
        self, checkpoint: Checkpoint, model_id: int, _allow_featurizing_already_registered: bool = True
    ) -> None:
        """Load a checkpoint's weights into the model and make its rows ready to be featurized.

        Args:
            checkpoint: a state dict, a path to one, a module, or a function that returns any of them.
            model_id: its id in the store, 0 or more; the projection depends on it.

        Raises:
            ValueError: if the weights do not fit the model, the id belongs to other weights, or the task can't be
                used with the model.
        """
        self.settle()
        # Nothing of the last checkpoint may be written to if this one can't be loaded.
        self._experiment = self._targets = self._table = self._model_id = None
        self._engine = EngineSelector(
            self._engine_name, self.model, self.task, self.parameters, self.memory_budget, self._warned
        )
        model_id, fingerprint = check_model_id(model_id), load_into(self.model, checkpoint)
        table = self.store.add_checkpoint(model_id, fingerprint)
        others = [i for i in self.store.checkpoints() if i != model_id and self.store.fingerprint(i) == fingerprint]
        if others and f"same weights: {model_id}" not in self._warned:  # scoring loads each once more
            self._warned.add(f"same weights: {model_id}")
            warnings.warn(
                f"model_ids {model_id} and {others[0]} have the same weights, so their average gains nothing; if they "
                "should differ: model.state_dict() is a view of the model, which loading overwrites; keep "
                "copy.deepcopy(model.state_dict())",
                stacklevel=2,
            )
        self._versions, self._compared = weight_versions(self.model), False
        with self._ready():
            self.task.prepare(self.model)
        self._table, self._model_id, self._next_row = table, model_id, 0

    def featurize(
        self,
        batch: Batch,
        inds: Indices | None = None,
        num_samples: int | None = None,
    ) -> None:
        """Store the features of a batch of training examples; those stored already are skipped.

        Args:
            batch: tuple, dict or BatchEncoding of tensors, the first dimension counting examples.
            inds: the examples' indices in the training set; by default the ones that follow.
            num_samples: accepted for traker 0.3.2; the batch says its own size.

        Raises:
            ValueError: for indices that can't be, for other data than was stored under them, for
                NaN or infinity, and for what the task finds wrong.
        """
        if self._table is None or self._model_id is None:
            raise ValueError("no checkpoint is loaded: call load_checkpoint before featurize")
        indices = row_indices(batch, inds, num_samples, self._next_row, self.train_set_size, "train_set_size")
        hashes = batches.digests(batch)
        self._writer.wait(indices)
        done = self._table.is_done(indices)
        changed = done & (self._table.hashes(indices) != hashes) if done.any() else done
        done, changed = self._sharing.agreed((done, changed), indices, hashes)
        if changed.any():
            raise ValueError(
                f"training example {int(indices[np.argmax(changed)])} was featurized from other data than this batch "
                f"holds for it (model_id {self._model_id}), as from a shuffled loader or random augmentation; pass "
                "the examples' indices as inds (index_key of trak.attribute), or iterate in order without "
                "augmentation, or use another save_dir if data or labels were changed on purpose. Nothing stored was "
                "changed"
            )
        self._compare_outputs(self._table, batch, indices, done, "training")
        if not done.all():
            self._sharing.add(PendingBatch(self._table, batch, indices, hashes, "training", np.zeros_like(done)))
        if inds is None:
            self._next_row += len(indices)
            if self._next_row == self.train_set_size:
                self._sharing.settle()  # while the model has the weights for it

    def settle(self) -> None:
        """Return once everything given to `featurize` and `score` is done, by whichever process, and on disk."""
        self._sharing.settle()
        self._writer.wait()

    def finalize_features(self, model_ids: Iterable[int] | None = None, del_grads: bool = False) -> None:
        """Compute and store the Gram matrix of each checkpoint, by default of all.

        Raises:
            ValueError: if a checkpoint is unknown or has rows that are not featurized.
        """
        _warn_obsolete(del_grads=del_grads and "features are the projected gradients and are needed for scoring")
        ids = self._chosen(model_ids)
        if not ids:
            raise ValueError("there is no checkpoint to finalize: call load_checkpoint and featurize first")
        self._sharing.settle()
        self.store.locks.once(
            f"gram_{self.weighting}", ids, lambda i: self.store.is_finalized(i, self.weighting), self._finalize
        )
        self._next_row = 0

    def _finalize(self, model_id: int) -> None:
        table = self.store.table(model_id)
        missing = table.undone()
        if missing:
            raise ValueError(
                f"model_id {model_id}: {table.count_undone()} of {len(table)} training examples are not featurized, "
                f"the first is {missing[0][0]}; featurize them, then finalize"
            )
        self.store.finalize(model_id, self.weighting, gram(table, self.weighting, self.device))

    def start_scoring_checkpoint(self, exp_name: str, checkpoint: Checkpoint, model_id: int, num_targets: int) -> None:
        """Load a finalized checkpoint and make an experiment ready for its targets.

        Args:
            exp_name: name of the experiment: one set of targets.
            checkpoint: as for `load_checkpoint`; the weights that were featurized under `model_id`.
            model_id: the checkpoint's id.
            num_targets: number of targets in the experiment.

        Raises:
            ValueError: if the weights are others, the checkpoint is not finalized, or the experiment
                was made for another number of targets.
        """
        if not self.store.is_finalized(check_model_id(model_id), self.weighting):
            raise ValueError(f"model_id {model_id} is not finalized, cannot score: call finalize_features first")
        self.load_checkpoint(checkpoint, model_id)
        self._experiment = self.store.add_experiment(exp_name, num_targets)
        self._targets = self._experiment.add_targets(int(model_id))
        self._next_target = 0

    def score(
        self,
        batch: Batch,
        inds: Indices | None = None,
        num_samples: int | None = None,
    ) -> None:
        """Store the features of a batch of targets; arguments as for `featurize`.

        Targets that differ from those stored under the same indices replace them.

        Raises:
            ValueError: as for `featurize`, and before `start_scoring_checkpoint`.
        """
        if self._targets is None or self._experiment is None:
            raise ValueError("no experiment is started: call start_scoring_checkpoint before score")
        indices = row_indices(batch, inds, num_samples, self._next_target, self._experiment.num_targets, "num_targets")
        hashes = batches.digests(batch)
        self._writer.wait(indices)
        done = self._targets.is_done(indices)
        same = done & (self._targets.hashes(indices) == hashes) if done.any() else done
        done, same = self._sharing.agreed((done, same), indices, hashes)
        self._compare_outputs(self._targets, batch, indices, same, "target")
        self._warn_of_others(indices[done & ~same])
        if not same.all():
            self._sharing.add(PendingBatch(self._targets, batch, indices, hashes, "target", done & ~same))
        if inds is None:
            self._next_target += len(indices)
            if self._next_target == self._experiment.num_targets:
                self._sharing.settle()

    def _warn_of_others(self, replaced: np.ndarray) -> None:
        assert self._experiment is not None  # its targets are being scored
        name = self._experiment.name
        if len(replaced) and name not in self._replaced:
            self._replaced.add(name)
            warnings.warn(
                f"target {int(replaced[0])} of experiment {name!r} is another than the one stored, which it replaces; "
                "give each set of targets an exp_name of its own to keep both",
                stacklevel=3,
            )

    def finalize_scores(
        self, exp_name: str, model_ids: Iterable[int] | None = None, allow_skip: bool = False
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The scores of an experiment, averaged over checkpoints.

        Args:
            exp_name: name of the experiment.
            model_ids: checkpoints to average over; by default all in the store.
            allow_skip: leave out checkpoints that have not featurized the targets, with a warning.

        Returns:
            Scores, float32 (train_set_size, num_targets), memory-mapped from a local store.
            Positive: training on the example pushed the target's output up.

        Raises:
            ValueError: if the experiment is unknown, or a checkpoint is not finalized or has not
                featurized the targets.
        """
        return self.attribution(exp_name, model_ids, allow_skip).scores

    def attribution(
        self, exp_name: str, model_ids: Iterable[int] | None = None, allow_skip: bool = False
    ) -> StoredAttribution:
        """The same as an attribution, which computes what it is asked for; arguments and errors as above."""
        self._sharing.settle()
        experiment = self.store.experiment(exp_name)
        ids = self._chosen(model_ids)
        for model_id in ids:
            self.store.fingerprint(model_id)
        skipped = sorted(set(ids) - set(experiment.checkpoints()))
        if skipped and allow_skip:
            warnings.warn(f"model_ids {skipped} have not featurized the targets of {exp_name!r}: skipped", stacklevel=2)
            ids = [model_id for model_id in ids if model_id not in skipped]
        self._next_target = 0
        return StoredAttribution(experiment, ids, self.weighting, self.damping, self.device, self.normalize_checkpoints)

    def _chosen(self, model_ids: Iterable[int] | None) -> list[int]:
        if model_ids is None:
            return self.store.checkpoints()
        if not isinstance(model_ids, Iterable):
            raise TypeError(
                f"model_ids must be a list of ids, got {model_ids!r}; pass [0] for the first alone, or None for all"
            )
        return [check_model_id(i) for i in model_ids]

    def _compare_outputs(self, table: Table, batch: Batch, indices: np.ndarray, done: np.ndarray, what: str) -> None:
        """Once for each checkpoint loaded: does code that changed since give what is stored?"""
        if self._compared or not done.any():
            return
        self._compared = True
        with self._ready():
            batch = batches.to_device(batch, self.device)
            output = self.task.output(self.model, batch).detach()
            q, r = self.task.weights_at_temperature(self.model, batch, output, self.loss_temperature)
        tolerance = 1e-3 if next(self.model.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
        for name, values in (("output", output), ("out_to_loss_grad", q), ("out_to_loss_curvature", r)):
            found, stored = values.detach().double().cpu().numpy(), table.column(name, indices)
            different = done & ~np.isclose(found, stored, rtol=tolerance, atol=tolerance)
            if different.any():
                row = int(np.argmax(different))
                raise ValueError(
                    f"{what} example {int(indices[row])} has {name} {found[row]:.4g} now, {stored[row]:.4g} was stored "
                    "for the same data and weights: the code of the model or the task has changed; use another save_dir"
                )

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The model as it was loaded, in a state to be differentiated whatever the caller's is."""
        if weight_versions(self.model) != self._versions:
            raise ValueError(
                f"the model's weights were changed after load_checkpoint of model_id {self._model_id}; load the "
                "checkpoint again, and give each TRAKer a model of its own"
            )
        with torch.inference_mode(False), torch.enable_grad(), differentiable(self.model, self.parameters):
            yield
        # Some models keep caches and counters in buffers, which their own forward changes.
        self._versions = weight_versions(self.model)

    def _compute(self, work: PendingBatch, then: Callable[[], None]) -> None:
        values = self._values(work)
        if self._experiment is not None and work.replaced.any():
            self._experiment.forget_scores()
        self._writer.write(work.table, work.indices, values, then)

    def _choose(self, batch: Batch) -> None:
        """Choose the engine by a batch."""
        with self._ready():
            self._engine(batches.to_device(batch, self.device))

    def _values(self, work: PendingBatch) -> RowValues:
        model_id = self._model_id
        assert model_id is not None  # both callers have loaded a checkpoint
        where = f"{work.what} set, checkpoint with model_id {model_id}"
        place = self.model, work.batch, int(work.indices[0]), where, self.memory_budget
        with describe_failing_batch(*place), self._ready():
            batch = batches.to_device(work.batch, self.device)
            engine = self._engine(batch)
            rows = featurize(
                engine, self.projector, batch, model_id, self.memory_budget, loss_temperature=self.loss_temperature
            )
            check_finite(rows, engine, batch, work.indices.tolist(), where)
        return RowValues(
            features=rows.features.cpu().numpy(),
            output=rows.output.cpu().numpy(),
            out_to_loss_grad=rows.out_to_loss_grad.cpu().numpy(),
            out_to_loss_curvature=rows.out_to_loss_curvature.cpu().numpy(),
            data_hash=work.hashes,
        )


def _softening(given: float | None, task: Task) -> float:
    if given is None:
        return DEFAULT_LOSS_TEMPERATURE if task.has_loss_temperature else 1.0
    if not is_number(given) or not 0 < given < float("inf"):
        raise ValueError(
            f"loss_temperature must be a positive and finite number, got {given!r}; use 1 for none, {DEFAULT_LOSS_TEMPERATURE:g} is "
            "usual"
        )
    if given != 1 and not task.has_loss_temperature:
        raise ValueError(
            f"loss_temperature={given:g} can't be had: {task.describe()['name']} computes its own get_out_to_loss_grad; use 1"
        )
    return float(given)


def _dtype(dtype: str | None, half: bool) -> str:
    if half and dtype not in (None, "float16"):
        raise ValueError(f"dtype={dtype!r} and use_half_precision=True, which means float16: give one of them")
    stored = "float16" if half else dtype or "float32"
    if stored not in STORED:
        raise ValueError(f"unknown dtype {stored!r}: {suggest(str(stored), STORED)}")
    return stored


def _warn_obsolete(**reasons: Any) -> None:
    for name, reason in reasons.items():
        if reason:
            warnings.warn(f"{name} has no effect any more: {reason}", DeprecationWarning, stacklevel=3)
