"""The result of an attribution: what a person looks at."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from trak._utils.optional import import_optional_dependency
from trak._utils.ranks import world_size
from trak.attribution.faithfulness import Faithfulness
from trak.inputs.batches import combined_digest
from trak.scoring import Damping, Scorer, TopK, TopKQuery, check_k, check_weighting, computed, merge_top_k
from trak.store import Experiment, check_model_id, open_store
from trak.store.location import Location
from trak.tasks.registry import describe_output
from trak.visualization.display_mixin import DisplayMixin

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow
    import xarray

_SORTED_AT_ONCE = 1 << 24
_QUICK = 1 << 33
"""Multiplications that may be done unasked."""

Array = np.ndarray[Any, Any]


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
        damping: float | str | None = None,
        lambda_reg: float | None = None,
        **options: Any,
    ) -> "StoredAttribution":
        """The attribution of an experiment stored before; options as of the constructor of `StoredAttribution`.

        Raises:
            FileNotFoundError: if there is no store.
            ValueError: if there is no such experiment.
        """
        return StoredAttribution(
            open_store(save_dir, writable=True).experiment(exp_name),
            damping=Damping.make(damping, lambda_reg),
            **options,
        )

    def to_frame(self, k: int | None = None, bottom: bool = False) -> "pandas.DataFrame":
        """`top(k)` as a long table with columns target, rank (from 1), train_index, score.

        Raises:
            ImportError: if pandas is not installed.
        """
        return import_optional_dependency("pandas", "to_frame needs pandas", "frames").DataFrame(
            self._columns(k, bottom)
        )

    def to_polars(self, k: int | None = None, bottom: bool = False) -> "polars.DataFrame":
        """The table of `to_frame` as polars' (ImportError if it is not installed)."""
        return import_optional_dependency("polars", "to_polars needs polars", "frames").DataFrame(
            self._columns(k, bottom)
        )

    def to_arrow(self, k: int | None = None, bottom: bool = False) -> "pyarrow.Table":
        """The table of `to_frame` as Arrow's (ImportError if pyarrow is not installed)."""
        return import_optional_dependency("pyarrow", "to_arrow needs pyarrow", "frames").table(self._columns(k, bottom))

    def to_xarray(self) -> "xarray.DataArray":
        """All scores with dimensions train_index and target, not copied (ImportError if xarray is not installed)."""
        return import_optional_dependency("xarray", "to_xarray needs xarray", "frames").DataArray(
            self.scores, dims=("train_index", "target"), name="score", attrs={"of": self.name}
        )

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
        """A picture of targets beside their most helpful and harmful images; see `trak.visualization.figures.show_images`."""
        from trak.visualization.figures import show_images

        return show_images(self, *args, **kwargs)

    def plot_scores(self, targets: int | Sequence[int] = 0, k: int = 5, ax: Any = None) -> Any:
        """The distribution of targets' scores, with both ends marked; see `trak.visualization.figures.plot_scores`."""
        from trak.visualization.figures import plot_scores

        return plot_scores(self.scores, targets, k, ax)

    def describe(self) -> dict[str, Any]:
        """What the scores are of and how they were made, ready for JSON."""
        train, targets = self.shape
        found: dict[str, Any] = {"name": self.name, "targets": targets, "training examples": train}
        faithful = self.faithfulness
        return found | ({} if faithful is None else {"faithfulness": str(faithful)})

    def _details(self) -> str:
        return ""

    def __repr__(self) -> str:
        train, targets = self.shape
        faithful = self.faithfulness
        measured = "" if faithful is None else f", LDS {faithful.mean:.3f}"
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
        weighting: str = "ggn",
        damping: Damping | None = None,
        device: torch.device | str = "cpu",
        normalize_checkpoints: bool = True,
        helpers: "Helpers | None" = None,
    ) -> None:
        """
        Args:
            experiment: the targets, featurized.
            model_ids: checkpoints to average over; by default all that featurized the targets.
            weighting: "ggn" or "identity", see `trak.scoring.gram`.
            damping: λ; by default chosen, see `trak.scoring.auto_damping`.
            device: where to multiply.
            normalize_checkpoints: whether every checkpoint has the same say in a target's scores, see `trak.scoring.Scorer`.
            helpers: other processes that compute scores, see `trak.distributed.Ray`.
        """
        self._helpers = helpers
        self.experiment, self.name = experiment, experiment.name
        self.model_ids = sorted(experiment.checkpoints() if model_ids is None else map(check_model_id, model_ids))
        self.weighting = check_weighting(weighting)
        self._damping, self._device, self.normalize_checkpoints = (
            damping or Damping(auto=True),
            device,
            normalize_checkpoints,
        )
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
        """λ; "auto" is settled when it is first asked for."""
        return self.scorer.damping

    @cached_property
    def scorer(self) -> Scorer:
        """Streams the scores."""
        return Scorer(
            self.experiment,
            self.model_ids,
            self.weighting,
            self._damping,
            self._device,
            normalize_checkpoints=self.normalize_checkpoints,
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.experiment.store.config.train_set_size, self.experiment.num_targets

    def to(self, device: torch.device | str) -> "StoredAttribution":
        """The same, to be multiplied on another device, by this process alone."""
        options = self.model_ids, self.weighting, self._damping, device, self.normalize_checkpoints
        return StoredAttribution(self.experiment, *options)

    def __reduce__(self) -> Any:
        options = self.model_ids, self.weighting, self._damping, self._device, self.normalize_checkpoints
        return _reopened, (self.experiment.store.location, self.name, *options)

    @cached_property
    def scores(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """All scores, float32 (n_train, n_targets): computed once, kept in the store and mapped."""
        self._check_targets()
        return self._computed(None)

    def _top(self, k: int, bottom: bool) -> TopK:
        self._check_targets()
        if self._helpers is None and world_size() == 1:
            # Streams the store; neither the full scores nor parts of them are stored.
            return self.scorer.top(k, bottom)
        best = TopKQuery(check_k(k, self.shape[0]), bool(bottom))
        return merge_top_k(self._computed(best), *best)

    def compute_pieces(self, best: TopKQuery | None, pieces: Iterable[int]) -> None:
        """Put some pieces of all scores, or of the `best`, into the store, as a helper of a process that waits."""
        self._computed(best, pieces)

    def _computed(self, best: TopKQuery | None, only: Iterable[int] | None = None) -> Array:
        settings = self._settings()
        help_with = None if self._helpers is None or only is not None else partial(self._helpers, self, best)
        silent = best is not None or only is not None or help_with is not None
        with tqdm(
            total=math.prod(self.shape), desc="scoring", unit="score", unit_scale=True, delay=0.5, disable=silent
        ) as bar:
            return computed(self.experiment, settings, lambda: self.scorer, best, bar.update, help_with, only)

    def _settings(self) -> dict[str, Any]:
        """What decides the scores besides features and targets."""
        return {
            "model_ids": self.model_ids,
            "fingerprints": [self.experiment.store.fingerprint(i) for i in self.model_ids],
            "weighting": self.weighting,
            "normalize_checkpoints": self.normalize_checkpoints,
            **self._damping.describe(),
        }

    @property
    def faithfulness(self) -> Any:
        """What `trak.evaluation.lds` found last for these scores: its result in the process that asked, and in others
        the figures of it that the store remembers, a `trak.attribution.faithfulness.Faithfulness`; None if it was not asked."""
        if self._faithfulness is not None:
            return self._faithfulness
        try:
            self._check_targets()
            return Faithfulness.from_record(self.experiment.measured(self._settings()))
        except ValueError:  # of other targets, or damaged: then it is to be measured again
            return None

    def remember(self, faithfulness: Any) -> None:
        super().remember(faithfulness)
        try:
            self._check_targets()
            self.experiment.keep_measured(self._settings(), faithfulness.figures.record())
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
        settled = self.__dict__["scorer"].damping if "scorer" in self.__dict__ else self._damping
        return super().describe() | {
            "task": config.task["name"],
            **({} if output is None else {"output": output}),
            "checkpoints": self.model_ids,
            **settled.describe(),
            **({"damping from": settled.why} if settled.why else {}),
            "weighting": self.weighting,
            "normalize_checkpoints": self.normalize_checkpoints,
            "loss_temperature": config.loss_temperature,
            "features": config.proj_dim,
            "projector": dict(config.projector),
            "store": self.experiment.store.where,
        }

    def _details(self) -> str:
        (option, value), *_ = self._damping.describe().items()
        return f", {len(self.model_ids)} checkpoints, weighting={self.weighting}, {option}={value}"


Helpers = Callable[[StoredAttribution, TopKQuery | None, int], object]
"""Has other processes call `compute_pieces` for so many pieces, and returns when they have."""


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
