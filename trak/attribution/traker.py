"""TRAKer: featurize checkpoint by checkpoint, then score."""

import logging
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn

from trak._utils.messages import suggest
from trak._utils.ranks import local_rank
from trak._utils.validation import check_device, is_number
from trak.attribution.results import StoredAttribution
from trak.attribution.session import CheckpointSession, FeatureSettings
from trak.distributed import BatchScheduler, LockingScheduler, LockstepScheduler, RankScheduler, SharingExecutor
from trak.gradients import MEMORY_BUDGET, check_engine_name, check_memory_budget, select_parameters
from trak.inputs.batches import Batch
from trak.inputs.checkpoints import Checkpoint
from trak.inputs.fsdp import compute_device, is_sharded
from trak.inputs.indices import Indices
from trak.inputs.wrappers import unwrap_model
from trak.projectors import Projector, make_projector
from trak.scoring import ScoringConfig, gram
from trak.store import FeatureStore, StoreConfig, Writer, check_model_id
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
    `trak.attribute` does all of it in one call. Everything is kept in `save_dir`: if the process
    is killed, run the same script again to resume.

    Example:
        >>> import torch, trak
        >>> from zarr.storage import MemoryStore
        >>> model, batch = torch.nn.Linear(3, 2), (torch.randn(8, 3), torch.arange(8) % 2)
        >>> traker = trak.TRAKer(model, "classification", train_set_size=8, save_dir=MemoryStore(), proj_dim=16)
        >>> traker.load_checkpoint(model.state_dict(), model_id=0)
        >>> traker.featurize(batch)
        >>> traker.finalize_features()
        >>> traker.start_scoring_checkpoint("first two", model.state_dict(), model_id=0, num_targets=2)
        >>> traker.score((batch[0][:2], batch[1][:2]))
        >>> traker.finalize_scores("first two").shape
        (8, 2)
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
        logging_level: int | str | None = None,
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
            logging_level: level of the logger "trak"; by default it is left alone.
            use_half_precision: the same as `dtype="float16"`.
            projector_seed: seed of the projection; checkpoints get independent ones from it.
            grad_wrt: parameters to differentiate by, `*` allowed; by default all that require gradients.
            lambda_reg: absolute λ; excludes `damping`.
            engine: "auto", "hooks", "functional" or "loop", see `trak.gradients`.
            damping: λ relative to trace(K)/k; by default "auto", see `trak.scoring.auto_damping`.
            weighting: "ggn" or "identity", see `trak.scoring.gram`.
            normalize_checkpoints: whether every checkpoint has equal weight in a target's scores, see
                `trak.scoring.Scorer`.
            loss_temperature: T of `trak.tasks.Task.weights_at_temperature`; by default 3, and 1 (as published) for
                tasks written for the published package.
            dtype: of the stored features: "float32" (the default), "float16" or "int8", both with a scale for each row;
                docs/ablations.md has what they cost in faithfulness.
            memory_budget: bytes that gradients and activations may take; larger batches are split.
            load_from_save_dir, gradient_computer, saver, score_computer, proj_max_batch_size:
                accepted for scripts written for traker 0.3.2, without effect.

        Raises:
            ValueError, TypeError: for invalid arguments.
            ConfigMismatchError: if `save_dir` was made with other settings.
            PermissionError: if `save_dir` can't be written to.
        """
        model = unwrap_model(model)
        if logging_level is not None:
            logger.setLevel(logging_level)
        _warn_obsolete(
            load_from_save_dir=None if load_from_save_dir else "any number of processes may use one save_dir",
            gradient_computer=gradient_computer and "use engine='functional' or 'loop'",
            saver=saver and "use save_dir",
            score_computer=score_computer and "use damping and weighting",
            proj_max_batch_size=proj_max_batch_size and "use memory_budget",
        )
        memory_budget, sharded = check_memory_budget(memory_budget), is_sharded(model)
        self.device = _device(device, model, sharded)
        self.model, self.task = model if sharded else model.to(self.device), make_task(task)
        self.scoring = ScoringConfig().override(damping, lambda_reg, weighting, normalize_checkpoints)
        engine = check_engine_name(getattr(gradient_computer, "engine", engine), model)
        loss_temperature = _loss_temperature(loss_temperature, self.task)
        if isinstance(train_set_size, np.integer):
            train_set_size = int(train_set_size)
        parameters = select_parameters(model, grad_wrt)
        projector = make_projector(projector, proj_dim, projector_seed)
        projector.bind({name: p.shape for name, p in parameters.items()})
        self.train_set_size, self.proj_dim = train_set_size, projector.proj_dim
        self._features = FeatureSettings(
            self.model,
            self.task,
            tuple(parameters),
            projector,
            engine,
            loss_temperature,
            self.device,
            memory_budget,
        )
        self._writer = Writer()
        self._store = FeatureStore.create(
            save_dir,
            StoreConfig(
                train_set_size=train_set_size,
                proj_dim=projector.proj_dim,
                projector=projector.describe(),
                dtype=_dtype(dtype, use_half_precision),
                parameters={name: list(p.shape) for name, p in parameters.items()},
                task=self.task.describe(),
                loss_temperature=loss_temperature,
            ),
        )
        self.scheduler = self._make_scheduler(sharded)
        self._session: CheckpointSession | None = None
        self._warned: set[str] = set()

    def _make_scheduler(self, sharded: bool) -> BatchScheduler:
        locks = self._store.locks
        if not sharded:
            return LockingScheduler(self._writer.wait, locks) if locks.enabled else RankScheduler(self._writer.wait)
        if not locks.enabled:
            raise ValueError(
                f"save_dir {self._store.where} is no directory, and a sharded model's ranks can write side by side "
                "to a directory only; use one that all of them see"
            )
        return LockstepScheduler(self._writer.wait)

    def overlapped(self) -> AbstractContextManager[None]:
        """While entered, `featurize` and `score` return before what they computed is on disk, and write it while the
        next batch is computed. An error of a write raises from the next call, or on leaving.
        """
        return self._writer.overlapped()

    @property
    def store(self) -> FeatureStore:
        """The feature store, with everything featurized so far in it."""
        self._writer.wait()
        return self._store

    @property
    def session(self) -> CheckpointSession:
        """The session of the loaded checkpoint.

        Raises:
            ValueError: if no checkpoint is loaded.
        """
        if self._session is None:
            raise ValueError("no checkpoint is loaded: call load_checkpoint before featurize")
        return self._session

    def load_checkpoint(
        self, checkpoint: Checkpoint, model_id: int, _allow_featurizing_already_registered: bool = True
    ) -> None:
        """Load a checkpoint's weights into the model and make its rows ready to be featurized.

        Args:
            checkpoint: a state dict, a path to one, a module, or a function that returns any of them.
            model_id: its id in the store, 0 or more; the projection depends on it.

        Raises:
            ValueError: if the weights do not fit the model, or the task can't be used with the model.
            CheckpointMismatchError: if the id belongs to other weights.
        """
        self.drain()
        self._session = None  # nothing of the last checkpoint may be written to if this one can't be loaded
        self._session = CheckpointSession(
            self._features, self.store, self.scheduler, self._writer, checkpoint, model_id, self._warned
        )

    def featurize(
        self,
        batch: Batch,
        inds: Indices | None = None,
        num_samples: int | None = None,
    ) -> None:
        """Store the features of a batch of training examples; completed rows are skipped.

        Args:
            batch: tuple, dict or BatchEncoding of tensors, the first dimension counting examples.
            inds: the examples' indices in the training set; by default the ones that follow.
            num_samples: accepted for traker 0.3.2; the batch says its own size.

        Raises:
            ValueError: for invalid indices, for other data than was stored under them, for
                NaN or infinity, and for what the task finds wrong.
        """
        session = self.session
        self.scheduler.process(session, session.training, batch, inds, num_samples)

    def drain(self) -> None:
        """Return once everything given to `featurize` and `score` is stored, by whichever process."""
        self.scheduler.drain()

    def finalize_features(self, model_ids: Iterable[int] | None = None, del_grads: bool = False) -> None:
        """Compute and store the Gram matrix of each checkpoint, by default of all.

        Raises:
            ValueError: if a checkpoint is unknown or has rows that are not featurized.
        """
        _warn_obsolete(del_grads=del_grads and "features are the projected gradients and are needed for scoring")
        ids = self._checked_ids(model_ids)
        if not ids:
            raise ValueError("there is no checkpoint to finalize: call load_checkpoint and featurize first")
        self.drain()
        name = f"gram_{self.scoring.weighting}"
        SharingExecutor(self.store.locks).run(name, ids, self.is_finalized, self._finalize)
        if self._session is not None:
            self._session.training.next_row = 0

    def is_finalized(self, model_id: int) -> bool:
        """Whether a checkpoint's Gram matrix is stored for this weighting."""
        return self.store.is_finalized(model_id, self.scoring.weighting)

    def _finalize(self, model_id: int) -> None:
        table, weighting = self.store.table(model_id), self.scoring.weighting
        missing = table.undone()
        if missing:
            raise ValueError(
                f"model_id {model_id}: {table.count_undone()} of {len(table)} training examples are not featurized, "
                f"the first is {missing[0][0]}; featurize them, then finalize"
            )
        self.store.finalize(model_id, weighting, gram(table, weighting, self.device))

    def start_scoring_checkpoint(self, exp_name: str, checkpoint: Checkpoint, model_id: int, num_targets: int) -> None:
        """Load a finalized checkpoint and make an experiment ready for its targets.

        Args:
            exp_name: name of the experiment: one set of targets.
            checkpoint: as for `load_checkpoint`; the weights that were featurized under `model_id`.
            model_id: the checkpoint's id.
            num_targets: number of targets in the experiment.

        Raises:
            CheckpointMismatchError: if the weights are others.
            ValueError: if the checkpoint is not finalized, or the experiment was made for another number of targets.
        """
        if not self.is_finalized(check_model_id(model_id)):
            raise ValueError(f"model_id {model_id} is not finalized, cannot score: call finalize_features first")
        self.load_checkpoint(checkpoint, model_id)
        self.session.start_targets(self.store.add_experiment(exp_name, num_targets))

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
        if self._session is None or self._session.targets is None:
            raise ValueError("no experiment is started: call start_scoring_checkpoint before score")
        self.scheduler.process(self._session, self._session.targets, batch, inds, num_samples)

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
            Positive: training on the example increased the target's output.

        Raises:
            ValueError: if the experiment is unknown, or a checkpoint is not finalized or has not
                featurized the targets.
        """
        return self.attribution(exp_name, model_ids, allow_skip).scores

    def attribution(
        self, exp_name: str, model_ids: Iterable[int] | None = None, allow_skip: bool = False
    ) -> StoredAttribution:
        """The same as an attribution, which computes what it is asked for; arguments and errors as above.

        The scoring settings and checkpoints are recorded: whoever opens the experiment scores by them.
        """
        self.scheduler.drain()
        experiment = self.store.experiment(exp_name)
        ids = self._checked_ids(model_ids)
        for model_id in ids:
            self.store.fingerprint(model_id)
        skipped = sorted(set(ids) - set(experiment.checkpoints()))
        if skipped and allow_skip:
            warnings.warn(f"model_ids {skipped} have not featurized the targets of {exp_name!r}: skipped", stacklevel=2)
            ids = [model_id for model_id in ids if model_id not in skipped]
        if self._session is not None and self._session.targets is not None:
            self._session.targets.next_row = 0
        experiment.record_scoring({"model_ids": ids, **self.scoring.describe()})
        return StoredAttribution(experiment, ids, self.scoring, self.device)

    def _checked_ids(self, model_ids: Iterable[int] | None) -> list[int]:
        if model_ids is None:
            return self.store.checkpoints()
        if not isinstance(model_ids, Iterable):
            raise TypeError(
                f"model_ids must be a list of ids, got {model_ids!r}; pass [0] for the first alone, or None for all"
            )
        return [check_model_id(i) for i in model_ids]


def _loss_temperature(given: float | None, task: Task) -> float:
    if given is None:
        return DEFAULT_LOSS_TEMPERATURE if task.has_loss_temperature else 1.0
    if not is_number(given) or not 0 < given < float("inf"):
        raise ValueError(
            f"loss_temperature must be a positive and finite number, got {given!r}; use 1 for none, "
            f"{DEFAULT_LOSS_TEMPERATURE:g} is usual"
        )
    if given != 1 and not task.has_loss_temperature:
        raise ValueError(
            f"loss_temperature={given:g} is not supported: {task.describe()['name']} computes its own "
            "get_out_to_loss_grad; use 1"
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
