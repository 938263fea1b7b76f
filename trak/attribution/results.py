"""The result of an attribution: what a person looks at."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from trak._utils.optional import import_optional_dependency
from trak._utils.ranks import world_size
from trak._utils.typing import Array
from trak.attribution.faithfulness import Faithfulness
from trak.distributed import Ray, RayExecutor, SharingExecutor, SubsetExecutor
from trak.inputs.batches import combined_digest
from trak.scoring import Damping, Scorer, ScoringConfig, TopK, TopKQuery, check_k, recorded_damping, scoring_settings
from trak.store import Executor, Experiment, ScoreMatrix, check_model_id, open_store
from trak.store.location import Location
from trak.tasks.registry import describe_output
from trak.visualization import DisplayMixin, figures

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow
    import xarray

_SORTED_AT_ONCE = 1 << 24
_QUICK = 1 << 33
"""Multiplications that may be done unasked."""


class Attribution(DisplayMixin):
    """Scores of every training example for every target.

    A score says how much training on the example moved the target's output: positive pushed it up,
    negative down. Scores of one target may be compared with each other.
    """

    name: str
    """What the scores are of, or by."""
    _faithfulness: Any = None

    @property
    def faithfulness(self) -> Any:
        """What `trak.evaluation.lds` found last for these scores; None if it was not asked."""
        return self._faithfulness

    def remember(self, faithfulness: Any) -> None:
        """Keep what `trak.evaluation.lds` found, which calls this."""
        self._faithfulness = faithfulness

    @property
    def targets_digest(self) -> str | None:
        """A hash of the targets' data, in order; None if it is not known."""
        return None

    @property
    @abstractmethod
    def scores(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All scores, float32 (n_train, n_targets), not to be written to."""

    def top(self, k: int | None = None, bottom: bool = False) -> TopK:
        """The k most helpful training examples of each target, or with `bottom` the most harmful.

        Of equal scores the lower index comes first. By default k is 10, or n_train if that is less.

        Returns:
            indices and scores, (n_targets, k) each, strongest first; a row for each target, to be picked from.

        Raises:
            ValueError: if k is not between 1 and n_train.
            TypeError: if it is no integer.
        """
        return self._top(min(10, self.shape[0]) if k is None else k, bottom)

    @abstractmethod
    def _top(self, k: int, bottom: bool) -> TopK: ...

    @classmethod
    def open(
        cls,
        save_dir: Location,
        exp_name: str = "targets",
        *,
        model_ids: Sequence[int] | None = None,
        damping: float | str | None = None,
        lambda_reg: float | None = None,
        weighting: str | None = None,
        normalize_checkpoints: bool | None = None,
        device: torch.device | str = "cpu",
    ) -> "StoredAttribution":
        """Open the attribution of a stored experiment.

        Args:
            save_dir: directory or URL of the feature store.
            exp_name: name of the experiment.
            model_ids: checkpoints to average over; by default those that the experiment was scored with.
            damping: λ relative to trace(K)/k, or "auto"; this and the next three are by default as recorded by
                `trak.attribute`.
            lambda_reg: absolute λ; excludes `damping`.
            weighting: "ggn" or "identity", see `trak.scoring.gram`.
            normalize_checkpoints: whether every checkpoint has equal weight in a target's scores.
            device: where to multiply.

        Raises:
            FileNotFoundError: if there is no store.
            ValueError: if there is no such experiment, or a setting is invalid.
        """
        experiment = open_store(save_dir, writable=True).experiment(exp_name)
        recorded = ScoringConfig.from_record(experiment.scoring())
        scoring = recorded.override(damping, lambda_reg, weighting, normalize_checkpoints)
        return StoredAttribution(experiment, model_ids, scoring, device)

    def to_frame(self, k: int | None = None, bottom: bool = False) -> "pandas.DataFrame":
        """`top(k)` as a long table with columns target, rank (from 1), train_index, score.

        Raises:
            ImportError: if pandas is not installed.
        """
        package = import_optional_dependency("pandas", "to_frame needs pandas", "frames")
        return package.DataFrame(self._columns(k, bottom))

    def to_polars(self, k: int | None = None, bottom: bool = False) -> "polars.DataFrame":
        """The table of `to_frame` as polars' (ImportError if it is not installed)."""
        package = import_optional_dependency("polars", "to_polars needs polars", "frames")
        return package.DataFrame(self._columns(k, bottom))

    def to_arrow(self, k: int | None = None, bottom: bool = False) -> "pyarrow.Table":
        """The table of `to_frame` as Arrow's (ImportError if pyarrow is not installed)."""
        return import_optional_dependency("pyarrow", "to_arrow needs pyarrow", "frames").table(self._columns(k, bottom))

    def to_xarray(self) -> "xarray.DataArray":
        """All scores with dimensions train_index and target, not copied (ImportError if xarray is not installed)."""
        package = import_optional_dependency("xarray", "to_xarray needs xarray", "frames")
        return package.DataArray(self.scores, dims=("train_index", "target"), name="score", attrs={"of": self.name})

    def _columns(self, k: int | None, bottom: bool) -> dict[str, Array]:
        found = self.top(k, bottom)
        targets, width = found.indices.shape
        return {
            "target": np.repeat(np.arange(targets), width),
            "rank": np.tile(np.arange(1, width + 1), targets),
            "train_index": found.indices.ravel(),
            "score": found.scores.ravel(),
        }

    def show_images(self, *args: Any, **kwargs: Any) -> Path | None:
        """Targets beside their most helpful and harmful images; see `trak.visualization.figures.show_images`."""
        return figures.show_images(self, *args, **kwargs)

    def plot_scores(self, targets: int | Sequence[int] = 0, k: int = 5, ax: Any = None) -> Any:
        """The distribution of targets' scores, with both ends marked; see `trak.visualization.figures.plot_scores`."""
        return figures.plot_scores(self.scores, targets, k, ax)

    def describe(self) -> dict[str, Any]:
        """What the scores are of and how they were made, ready for JSON."""
        train, targets = self.shape
        measured = {} if (faithful := self.faithfulness) is None else {"faithfulness": str(faithful)}
        return {"name": self.name, "targets": targets, "training examples": train, **measured}

    def _details(self) -> str:
        return ""

    def __repr__(self) -> str:
        train, targets = self.shape
        measured = "" if (faithful := self.faithfulness) is None else f", LDS {faithful.mean:.3f}"
        return f"Attribution({self.name!r}: {targets} targets to {train} training examples{self._details()}{measured})"


class StoredAttribution(Attribution):
    """TRAK scores of one experiment in a feature store.

    In units of the output f (log-odds for the margin) to first order. Nothing is computed before it
    is asked for.
    """

    def __init__(
        self,
        experiment: Experiment,
        model_ids: Sequence[int] | None = None,
        scoring: ScoringConfig | None = None,
        device: torch.device | str = "cpu",
        engine: Ray | None = None,
    ) -> None:
        """
        Args:
            experiment: the targets, featurized.
            model_ids: checkpoints to average over; by default as recorded, or all that featurized the targets.
            scoring: how features become scores; by default as recorded.
            device: where to multiply.
            engine: cluster whose tasks compute scores.
        """
        self._engine = engine
        self.experiment, self.name = experiment, experiment.name
        recorded = experiment.scoring()
        if model_ids is None:
            model_ids = recorded.get("model_ids") or experiment.checkpoints()
        self.model_ids = sorted(map(check_model_id, model_ids))
        self.scoring = ScoringConfig.from_record(recorded) if scoring is None else scoring
        self._device = device
        self._targets = self._target_hashes()

    def _target_hashes(self) -> dict[int, bytes]:
        known = set(self.experiment.checkpoints())
        return {i: self.experiment.targets(i).hashes(slice(None)).tobytes() for i in self.model_ids if i in known}

    def _check_targets(self) -> None:
        if self._target_hashes() != self._targets:
            raise ValueError(
                f"the targets of experiment {self.experiment.name!r} were replaced by others since this attribution "
                "was made; give each set of targets an exp_name of its own"
            )

    @property
    def targets_digest(self) -> str | None:
        hashes = next(iter(self._targets.values()), None)
        return None if hashes is None else combined_digest(np.frombuffer(hashes, np.uint64))

    @property
    def damping(self) -> Damping:
        """λ in force; "auto" is settled when it is first asked for, and recorded in the store."""
        return self.scorer.damping

    def settle_damping(self) -> None:
        """Choose λ now where it is "auto", so that every process that opens the experiment uses the same one."""
        if self.scoring.damping.auto:
            self.scorer  # noqa: B018

    @cached_property
    def scorer(self) -> Scorer:
        """Streams the scores."""
        return Scorer(self.experiment, self.model_ids, self.scoring, self._device)

    @property
    def shape(self) -> tuple[int, int]:
        return self.experiment.store.config.train_set_size, self.experiment.num_targets

    def to(self, device: torch.device | str) -> "StoredAttribution":
        """The same, to be multiplied on another device, by this process alone."""
        return StoredAttribution(self.experiment, self.model_ids, self.scoring, device)

    def __reduce__(self) -> Any:
        return _reopened, (self.experiment.store.location, self.name, self.model_ids, self.scoring, self._device)

    @cached_property
    def scores(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All scores, float32 (n_train, n_targets): computed once, kept in the store and mapped."""
        self._check_targets()
        matrix = self.experiment.score_matrix(self._settings())
        return (matrix if matrix.is_complete() else self.compute(None, self._executor(None))).read()

    def _top(self, k: int, bottom: bool) -> TopK:
        self._check_targets()
        alone, query = self._engine is None and world_size() == 1, TopKQuery(k, bottom)
        return self.scorer.top(query, None if alone else self._executor(query))

    def compute(self, query: TopKQuery | None, executor: Executor) -> ScoreMatrix:
        """Compute all scores, or those that `top` merges for a query, into the store; arguments as for
        `trak.scoring.Scorer.compute`."""
        silent = query is not None or not isinstance(executor, SharingExecutor)
        with tqdm(
            total=math.prod(self.shape), desc="scoring", unit="score", unit_scale=True, delay=0.5, disable=silent
        ) as bar:
            return self.scorer.compute(query, executor, bar.update)

    def _executor(self, query: TopKQuery | None) -> Executor:
        sharing = SharingExecutor(self.experiment.store.locks)
        if self._engine is None:
            return sharing
        there = self.to("cuda" if self._engine.num_gpus_per_worker else "cpu")
        return RayExecutor(self._engine, partial(_compute_some, there, query), sharing)

    def _settings(self) -> dict[str, Any]:
        return scoring_settings(self.experiment, self.model_ids, self.scoring)

    @property
    def faithfulness(self) -> Any:
        """What `trak.evaluation.lds` found last for these scores: its result in the process that asked, in others its
        figures in the store, a `trak.attribution.faithfulness.Faithfulness`; None if it was not asked."""
        if self._faithfulness is not None:
            return self._faithfulness
        try:
            self._check_targets()
            return Faithfulness.from_record(self.experiment.faithfulness_record(self._settings()))
        except ValueError:  # of other targets, or damaged: then it is to be measured again
            return None

    def remember(self, faithfulness: Any) -> None:
        super().remember(faithfulness)
        try:
            self._check_targets()
            self.experiment.record_faithfulness(self._settings(), faithfulness.figures.record())
        except (OSError, ValueError) as error:
            warnings.warn(
                f"the LDS could not be kept in {self.experiment.store.where} ({error}), so that this process alone "
                "knows it; make the store writable and measure again, or keep the result yourself",
                stacklevel=3,
            )

    def _is_quick(self) -> bool:
        try:
            self._check_targets()
            self.scorer  # noqa: B018  what can't be scored yet is summarized all the same
        except ValueError:
            return False
        train, targets = self.shape
        return train * self.experiment.store.config.proj_dim * len(self.model_ids) * max(64, targets) <= _QUICK

    def describe(self) -> dict[str, Any]:
        config = self.experiment.store.config
        output = describe_output(config.task["name"], config.task.get("settings"))
        damping = self._known_damping()
        return super().describe() | {
            "task": config.task["name"],
            **({} if output is None else {"output": output}),
            "checkpoints": self.model_ids,
            **damping.describe(),
            **({"damping from": damping.why} if damping.why else {}),
            "weighting": self.scoring.weighting,
            "normalize_checkpoints": self.scoring.normalize_checkpoints,
            "loss_temperature": config.loss_temperature,
            "features": config.proj_dim,
            "projector": dict(config.projector),
            "store": self.experiment.store.where,
        }

    def _details(self) -> str:
        damping, scoring, count = self._known_damping(), self.scoring, len(self.model_ids)
        ((name, value),) = damping.describe().items()
        shown = f"{value:.3g}" if isinstance(value, float) else value
        settled = " (auto)" if scoring.damping.auto and not damping.auto else ""
        return (
            f", {count} checkpoint{'s' * (count != 1)}, weighting={scoring.weighting}, {name}={shown}{settled}"
            f", loss_temperature={self.experiment.store.config.loss_temperature:g}"
            + ("" if scoring.normalize_checkpoints else ", normalize_checkpoints=False")
        )

    def _known_damping(self) -> Damping:
        """λ in force, or "auto" while it is not settled; reads no features."""
        try:
            return recorded_damping(self.scoring, self.experiment, self.model_ids) or self.scoring.damping
        except (OSError, ValueError):  # what is damaged is described all the same
            return self.scoring.damping


def _compute_some(attribution: StoredAttribution, query: TopKQuery | None, tiles: Sequence[int]) -> None:
    """Compute some tiles, as a task of a cluster."""
    attribution.compute(query, SubsetExecutor(tiles, SharingExecutor(attribution.experiment.store.locks)))


def _reopened(location: Location, name: str, *options: Any) -> StoredAttribution:
    return StoredAttribution(open_store(location, writable=True).experiment(name), *options)


class ArrayAttribution(Attribution):
    """Scores that are there already, in memory."""

    def __init__(self, scores: Any, name: str = "scores") -> None:
        """
        Args:
            scores: (n_train, n_targets), anything that NumPy takes; float32 is not copied.
            name: what they are called when printed.

        Raises:
            ValueError: for another shape, an empty one, or scores that are not finite.
        """
        array = np.asarray(scores.detach().cpu() if isinstance(scores, torch.Tensor) else scores)
        if array.ndim != 2 or not array.size or array.dtype.kind not in "biuf":
            raise ValueError(
                f"scores must be numbers of shape (n_train, n_targets), at least one of each, got {array.dtype} of "
                f"shape {array.shape}; pass such an array or tensor"
            )
        with np.errstate(over="ignore"):  # noticed as infinite
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ValueError(
                f"the score of training example {row} for target {column} is {array[row, column]} ({name}), and "
                "scores must be finite; look where it came from, or replace it by 0"
            )
        self.name, self._scores = name, array.view()
        self._scores.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int]:
        return self._scores.shape

    @property
    def scores(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        return self._scores

    def _is_quick(self) -> bool:
        return self._scores.size <= _QUICK >> 9

    def _top(self, k: int, bottom: bool) -> TopK:
        n, targets = self.shape
        k = check_k(k, n)
        indices, sign = np.empty((targets, k), np.int64), 1 if bottom else -1
        step = max(1, _SORTED_AT_ONCE // n)
        for start in range(0, targets, step):
            part = np.multiply(self._scores[:, start : start + step].T, sign, order="C")
            edge = torch.from_numpy(part).topk(k, largest=False).values.numpy()[:, -1:]
            before, equal = part < edge, part == edge
            # Of those that equal the k-th only the first ones.
            some = before | (equal & (equal.cumsum(axis=1, dtype=np.int32) <= k - before.sum(axis=1, keepdims=True)))
            found = some.nonzero()[1].reshape(-1, k)
            order = np.argsort(np.take_along_axis(part, found, 1), axis=1, kind="stable")
            indices[start : start + step] = np.take_along_axis(found, order, 1)
        return TopK(indices, self._scores[indices, np.arange(targets)[:, None]])
