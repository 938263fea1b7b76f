"""One loaded checkpoint: what is featurized with its weights, and where the rows go."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from trak.distributed import BatchScheduler, BatchStep, ExampleSet, PendingBatch
from trak.gradients import EngineSelector, check_finite, differentiable, featurize
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.checkpoints import Checkpoint, load_into
from trak.inputs.failing_batch import describe_failing_batch
from trak.inputs.indices import Indices, row_indices
from trak.inputs.weights import weight_versions
from trak.projectors import Projector
from trak.store import CheckpointMismatchError, Experiment, FeatureStore, RowValues, Writer, check_model_id
from trak.tasks import Task


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the features, and where they are computed: the same for every checkpoint."""

    model: nn.Module
    task: Task
    parameters: tuple[str, ...]
    """Names of the parameters that are differentiated."""
    projector: Projector
    engine: str
    loss_temperature: float
    device: torch.device
    memory_budget: int
    """Bytes that gradients and activations may take."""


class CheckpointSession(BatchStep):
    """Featurizes training examples and targets with one checkpoint, whose weights the model holds meanwhile."""

    def __init__(
        self,
        settings: FeatureSettings,
        store: FeatureStore,
        scheduler: BatchScheduler,
        writer: Writer,
        checkpoint: Checkpoint,
        model_id: int,
        warned: set[str],
    ) -> None:
        """
        Args:
            settings: what decides the features.
            store: receives the rows.
            scheduler: decides who computes which batch.
            writer: writes the rows.
            checkpoint: is loaded into the model.
            model_id: the checkpoint's id in the store.
            warned: warnings that were given already; is added to.

        Raises:
            ValueError: if the weights do not fit the model or the task cannot be used with it.
            CheckpointMismatchError: if the id belongs to other weights.
        """
        self._settings, self._scheduler, self._writer, self._warned = settings, scheduler, writer, warned
        self._engine = EngineSelector(
            settings.engine, settings.model, settings.task, settings.parameters, settings.memory_budget, warned
        )
        self.model_id = check_model_id(model_id)
        fingerprint = load_into(settings.model, checkpoint)
        table = store.add_checkpoint(self.model_id, fingerprint)
        self._warn_of_twin(store, fingerprint)
        self._versions, self._compared = weight_versions(settings.model), False
        with self._ready():
            settings.task.prepare(settings.model)
        self.training = ExampleSet("training", table, "train_set_size")
        self.targets: ExampleSet | None = None

    def _warn_of_twin(self, store: FeatureStore, fingerprint: str) -> None:
        same = [i for i in store.checkpoints() if i != self.model_id and store.fingerprint(i) == fingerprint]
        warning = f"same weights: {self.model_id}"
        if same and warning not in self._warned:  # scoring loads each once more
            self._warned.add(warning)
            warnings.warn(
                f"model_ids {self.model_id} and {same[0]} have the same weights, so averaging them gains nothing. "
                "model.state_dict() is a view of the model, which loading overwrites; keep "
                "copy.deepcopy(model.state_dict()) if they should differ.",
                stacklevel=4,
            )

    def start_targets(self, experiment: Experiment) -> None:
        """Featurize targets of an experiment from now on."""
        table = experiment.add_targets(self.model_id)
        self.targets = ExampleSet("target", table, "num_targets", experiment)

    def prepare(
        self, examples: ExampleSet, batch: Batch, inds: Indices | None = None, num_samples: int | None = None
    ) -> PendingBatch | None:
        """Check a batch, and return what is to be computed of it; None if all of its rows are stored.

        Raises:
            ValueError: for invalid indices, for training examples that differ from those stored, and if the code of
                the model or the task has changed since they were.
        """
        indices = row_indices(batch, inds, num_samples, examples.next_row, len(examples.table), examples.size_name)
        hashes = batches.digests(batch)
        self._writer.wait(indices)
        done = examples.table.is_done(indices)
        same = done & (examples.table.hashes(indices) == hashes) if done.any() else done
        done, same = self._scheduler.broadcast_decision((done, same), indices, hashes)
        replaced = done & ~same
        if replaced.any():
            self._check_replaceable(examples, int(indices[np.argmax(replaced)]))
        self._compare_outputs(examples, batch, indices, same)
        if same.all():
            return None
        return PendingBatch(self, examples.table, batch, indices, hashes, examples.name, replaced)

    def _check_replaceable(self, examples: ExampleSet, index: int) -> None:
        if examples.experiment is None:
            raise ValueError(
                f"training example {index} was featurized from other data than this batch holds for it (model_id "
                f"{self.model_id}), as from a shuffled loader or random augmentation; pass the examples' indices as "
                "inds (index_key of trak.attribute), or iterate in order without augmentation, or use another save_dir "
                "if data or labels were changed on purpose. Nothing stored was changed"
            )
        name = examples.experiment.name
        warning = f"replaced targets: {name}"
        if warning not in self._warned:
            self._warned.add(warning)
            warnings.warn(
                f"target {index} of experiment {name!r} is another than the one stored, which it replaces; "
                "give each set of targets an exp_name of its own to keep both",
                stacklevel=5,
            )

    def _compare_outputs(self, examples: ExampleSet, batch: Batch, indices: np.ndarray, done: np.ndarray) -> None:
        """Once per session: check that today's code gives what is stored."""
        if self._compared or not done.any():
            return
        self._compared = True
        settings = self._settings
        with self._ready():
            batch = batches.to_device(batch, settings.device)
            output = settings.task.output(settings.model, batch).detach()
            q, r = settings.task.weights_at_temperature(settings.model, batch, output, settings.loss_temperature)
        exact = next(settings.model.parameters()).dtype in (torch.float32, torch.float64)
        tolerance = 1e-3 if exact else 5e-2
        for name, values in (("output", output), ("out_to_loss_grad", q), ("out_to_loss_curvature", r)):
            found, stored = values.detach().double().cpu().numpy(), examples.table.column(name, indices)
            different = done & ~np.isclose(found, stored, rtol=tolerance, atol=tolerance)
            if different.any():
                row = int(np.argmax(different))
                raise ValueError(
                    f"{examples.name} example {int(indices[row])} has {name} {found[row]:.4g} now, {stored[row]:.4g} "
                    "was stored for the same data and weights: the code of the model or the task has changed; use "
                    "another save_dir"
                )

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The model with the weights that were loaded, differentiable whatever the caller's modes are."""
        model = self._settings.model
        if weight_versions(model) != self._versions:
            raise CheckpointMismatchError(
                f"the model's weights were changed after load_checkpoint of model_id {self.model_id}; load the "
                "checkpoint again, and give each TRAKer a model of its own"
            )
        with torch.inference_mode(False), torch.enable_grad(), differentiable(model, self._settings.parameters):
            yield
        # Some models keep caches and counters in buffers, which their own forward changes.
        self._versions = weight_versions(model)

    def select_engine(self, batch: Batch) -> None:
        with self._ready():
            self._engine(batches.to_device(batch, self._settings.device))

    def compute(self, work: PendingBatch) -> RowValues:
        settings = self._settings
        where = f"{work.set_name} set, checkpoint with model_id {self.model_id}"
        place = settings.model, work.batch, int(work.indices[0]), where, settings.memory_budget
        with describe_failing_batch(*place), self._ready():
            batch = batches.to_device(work.batch, settings.device)
            engine = self._engine(batch)
            rows = featurize(
                engine,
                settings.projector,
                batch,
                self.model_id,
                settings.memory_budget,
                loss_temperature=settings.loss_temperature,
            )
            check_finite(rows, engine, batch, work.indices.tolist(), where)
        return RowValues(
            features=rows.features.cpu().numpy(),
            output=rows.output.cpu().numpy(),
            out_to_loss_grad=rows.out_to_loss_grad.cpu().numpy(),
            out_to_loss_curvature=rows.out_to_loss_curvature.cpu().numpy(),
            data_hash=work.hashes,
        )

    def write(self, work: PendingBatch, values: RowValues, written: Callable[[], None]) -> None:
        if self.targets is not None and self.targets.experiment is not None and work.replaced.any():
            self.targets.experiment.delete_scores()
        self._writer.write(work.table, work.indices, values, written)
