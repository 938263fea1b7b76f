"""Scores from models retrained on subsets of the training set."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from torch import nn
from tqdm.auto import tqdm

from trak._utils.optional import import_optional_dependency
from trak._utils.typing import Array
from trak._utils.validation import check_option, is_number
from trak.attribution.results import Attribution
from trak.baselines.base import Baseline, BaselineInputs, register_baseline
from trak.inputs.batches import Batch
from trak.inputs.checkpoints import Checkpoint
from trak.inputs.loaders import count_examples
from trak.tasks import Task

_PENALTIES = 50


class RetrainedModels(Protocol):
    """Models trained on subsets, such as `trak.evaluation.GroundTruth`."""

    @property
    def masks(self) -> Array:
        """Which examples each subset holds, bool (m, n)."""

    @property
    def outputs(self) -> Array:
        """Outputs f of the models trained on them, (m, seeds, n_targets)."""


class RetrainedBaseline(Baseline):
    """A baseline that looks at retrained models alone: nothing else that it is given is used, and all may be left out;
    `train` and `targets`, if given, must have as many examples as the models know of."""

    def __init__(self, ground_truth: RetrainedModels) -> None:
        self._masks, outputs = np.asarray(ground_truth.masks, bool), np.asarray(ground_truth.outputs, np.float64)
        if self._masks.ndim != 2 or outputs.ndim != 3 or len(outputs) != len(self._masks) or not outputs.size:
            raise ValueError(
                "expected masks of shape (subsets, n_train) and outputs of shape (subsets, seeds, n_targets), got "
                f"{self._masks.shape} and {outputs.shape}; pass what trak.evaluation.retrain returned, or arrays of "
                "these shapes"
            )
        if not np.isfinite(outputs).all():
            subset, seed, target = np.argwhere(~np.isfinite(outputs))[0].tolist()
            raise ValueError(
                f"the output of subset {subset}, seed {seed} for target {target} is {outputs[subset, seed, target]}, "
                "not finite; leave that subset out, or train it again"
            )
        self.subsets, self.seeds = outputs.shape[:2]
        self._outputs = outputs.mean(axis=1)

    def attribute(
        self,
        model: nn.Module | None = None,
        task: Task | str | Any = None,
        checkpoints: Checkpoint | Sequence[Checkpoint] = (),
        train: Iterable[Batch] | None = None,
        targets: Iterable[Batch] | None = None,
        *,
        progress: bool = True,
    ) -> Attribution:
        """Score as `Baseline.attribute` does; every argument may be left out."""
        for name, loader, count, source in (
            ("train", train, self._masks.shape[1], "masks"),
            ("targets", targets, self._outputs.shape[1], "outputs"),
        ):
            if loader is not None and (found := count_examples(loader, name)) != count:
                raise ValueError(
                    f"{name} holds {found} examples, the {source} of the retrained models {count}; pass the data that "
                    "was retrained on"
                )
        return super().attribute(model, task, checkpoints, train or (), targets or (), progress=progress)


@register_baseline("empirical_influence")
class EmpiricalInfluence(RetrainedBaseline):
    """The mean output of the models that saw the example minus that of those that did not (Feldman & Zhang, "What
    neural networks memorize and why", 2020, equation 2, with the output in place of correctness)."""

    def __init__(self, ground_truth: RetrainedModels) -> None:
        """
        Args:
            ground_truth: what has `masks`, bool (m, n), and `outputs`, (m, seeds, n_targets).

        Raises:
            ValueError: if their shapes do not fit, an output is not finite, or every subset, or none, holds an example.
        """
        super().__init__(ground_truth)
        counts = self._masks.sum(axis=0)
        for count, what in ((0, "no subset"), (self.subsets, "every subset")):
            if (counts == count).any():
                raise ValueError(
                    f"{what} holds training example {int(np.argmax(counts == count))}, so that there is nothing to "
                    "compare; train on more random subsets"
                )

    def compute_scores(self, inputs: BaselineInputs) -> Array:
        inside = self._masks.T.astype(np.float64)
        seen, unseen = (part @ self._outputs / part.sum(1, keepdims=True) for part in (inside, 1 - inside))
        return seen - unseen


@register_baseline("datamodel")
class Datamodel(RetrainedBaseline):
    """The weights of a linear regression, for each target, from which examples a subset holds to the output of a model
    trained on it (Ilyas et al., "Datamodels: predicting predictions from training data", 2022, section 2).

    The penalty is chosen for each target by cross-validation over the subsets given: in folds for the
    lasso, leaving out one at a time for ridge regression.
    """

    def __init__(
        self,
        ground_truth: RetrainedModels,
        regression: str = "lasso",
        *,
        penalty: float | None = None,
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        """
        Args:
            ground_truth: what has `masks`, bool (m, n), and `outputs`, (m, seeds, n_targets); outputs are averaged
                over seeds.
            regression: "lasso" (sparse, as in the paper) or "ridge".
            penalty: scikit-learn's `alpha`; None to choose it.
            folds: of the cross-validation ("lasso").
            seed: of the split into folds.

        Raises:
            ValueError: for invalid arguments, models of other shapes, or an output that is not finite.
            ImportError: if scikit-learn is not installed.
        """
        super().__init__(ground_truth)
        import_optional_dependency("sklearn", "datamodels need scikit-learn", "baselines")
        self.regression = check_option(regression, "regression", ("lasso", "ridge"))
        if penalty is not None and not (is_number(penalty) and 0 < penalty < float("inf")):
            raise ValueError(
                f"penalty must be positive and finite, or None to choose it, got {penalty!r}; give a positive number, "
                "or None"
            )
        if penalty is None and not 2 <= folds <= self.subsets:
            raise ValueError(
                f"folds must be between 2 and the number of subsets, {self.subsets}, got {folds}; use 5, or train on "
                "more subsets"
            )
        self.penalty, self.folds, self.seed = penalty, folds, seed

    def compute_scores(self, inputs: BaselineInputs) -> Array:
        from sklearn.linear_model import Ridge, RidgeCV

        x, y = self._masks.astype(np.float64), self._outputs
        # Of order 1 whatever the outputs' unit, as the solvers' tolerances are. Of a constant nothing can be told.
        unit = y.std(axis=0)
        varies = unit > 1e-12 * np.abs(y).max(axis=0, initial=1e-300)
        scores = np.zeros((x.shape[1], y.shape[1]))
        with tqdm(total=y.shape[1], desc=self.name, unit="target", disable=not inputs.progress) as bar:
            if self.regression == "ridge" and varies.any():
                # From a thousandth of the mean squared singular value of the centred masks to a thousand times it.
                penalties = ((x - x.mean(0)) ** 2).sum() / min(x.shape) * np.logspace(-3, 3, _PENALTIES)
                model = Ridge(self.penalty) if self.penalty else RidgeCV(penalties, alpha_per_target=True)
                scores[:, varies] = model.fit(x, y[:, varies] / unit[varies]).coef_.T * unit[varies]
                bar.update(y.shape[1])
            else:
                for target in np.flatnonzero(varies):
                    scores[:, target] = self._lasso(x, y[:, target] / unit[target], unit[target]) * unit[target]
                    bar.update(1)
        return scores

    def _lasso(self, x: Array, y: Array, unit: float) -> Array:
        from sklearn.linear_model import Lasso, LassoCV
        from sklearn.model_selection import KFold

        if self.penalty is not None:
            return Lasso(self.penalty / unit, max_iter=10_000).fit(x, y).coef_
        folds = KFold(self.folds, shuffle=True, random_state=self.seed)
        # From the least that leaves no weight down to a thousandth of it, in equal ratios (Friedman et al., 2010).
        largest = np.abs((x - x.mean(0)).T @ (y - y.mean())).max() / len(y)
        return LassoCV(alphas=largest * np.logspace(0, -3, _PENALTIES), cv=folds, max_iter=10_000).fit(x, y).coef_
