"""The selected targets with the training examples at both ends of their rankings, for `show` and `report`."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from trak._utils.typing import Array
from trak._utils.validation import as_array, as_indices
from trak.scoring import TopK
from trak.visualization.dataset_reader import DatasetReader, check_label_count, value_at


class RankedExamples(Protocol):
    """The parts of an attribution that are displayed."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n_train, n_targets)."""

    @abstractmethod
    def top(self, k: int | None = None, bottom: bool = False) -> TopK:
        """The k highest or lowest scores of each target."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings of the scores, ready for JSON."""


class ScoredExample(NamedTuple):
    """A training example at one end of a target's ranking."""

    train_index: int
    score: float


class TargetRanking(NamedTuple):
    """A target with the training examples of the highest scores and of the lowest, strongest first."""

    target: int
    helpful: tuple[ScoredExample, ...]
    harmful: tuple[ScoredExample, ...]


class Selection:
    """Targets, and the training examples at both ends of their rankings."""

    def __init__(
        self,
        attribution: RankedExamples,
        train_dataset: Any = None,
        target_dataset: Any = None,
        targets: Sequence[int] | None = None,
        k: int | None = None,
        *,
        train_labels: Sequence[Any] | None = None,
        target_labels: Sequence[Any] | None = None,
        predicted_labels: Sequence[Any] | None = None,
        label_names: Sequence[str] | Mapping[Any, str] | None = None,
        display: Callable[[Any], Any] | None = None,
        tokenizer: Any = None,
        train_token_scores: Callable[[int, int], Sequence[float]] | None = None,
        target_token_scores: Callable[[int], Sequence[float]] | None = None,
    ) -> None:
        """
        Args:
            attribution: the scores.
            train_dataset, target_dataset: data whose `dataset[i]` is an example: a data set of torch's or Hugging
                Face's, a list of strings, an array of images, columns (a tuple, a dict or a DataFrame, read by
                position), or a DataLoader in order. Without one, only indices and scores are displayed.
            targets: the targets to display; by default all.
            k: how many training examples at either end; by default 5, or n_train if that is less.
            train_labels, target_labels: one for each example, in place of those in the data sets.
            predicted_labels: the model's predictions, one for each target.
            label_names: names of labels that are numbers; by default those of a `datasets.Dataset`.
            display: converts an example of a data set to an image, a text, a list of tokens, or a tuple or dict of
                them; by default these are found by their types. An example keeps its label unless the result has one.
            tokenizer: with `decode`, or a function, from the number of a token to its text.
            train_token_scores: for (target, train_index), a number for each token of the training example: its shade.
            target_token_scores: for a target, a number for each of its tokens.

        Raises:
            ValueError: if a target is out of range or repeated, or a data set or a list of labels has another length
                than the attribution.
            TypeError: if the examples of a data set cannot be read by their number.
        """
        train, count = attribution.shape
        self.attribution = attribution
        self.targets: list[int] = as_indices(targets, count, "targets").tolist()
        self.k = min(5, train) if k is None else k
        options: dict[str, Any] = {"label_names": label_names, "display": display, "tokenizer": tokenizer}
        self.train = DatasetReader(train_dataset, train, "train_dataset", labels=train_labels, **options)
        self.target = DatasetReader(target_dataset, count, "target_dataset", labels=target_labels, **options)
        if predicted_labels is not None:
            check_label_count(predicted_labels, "predicted_labels", count, "targets")
        self._predicted = predicted_labels
        self._train_scores: Callable[..., Sequence[float]] | None = train_token_scores
        self._target_scores: Callable[..., Sequence[float]] | None = target_token_scores

    def rankings(self) -> Iterator[TargetRanking]:
        """The ranking of each target."""
        ends = self.attribution.top(self.k), self.attribution.top(self.k, bottom=True)
        for target in self.targets:
            both = [zip(found.indices[target], found.scores[target], strict=True) for found in ends]
            # As short as a float32 can be told by.
            yield TargetRanking(target, *(tuple(ScoredExample(int(i), float(str(s))) for i, s in end) for end in both))

    def predicted(self, target: int) -> str | None:
        """The label that was predicted, in words."""
        return None if self._predicted is None else self.target.label_name(value_at(self._predicted, target))

    def token_scores(self, target: int, *train_index: int) -> Array | None:
        """The user's numbers for the tokens of a training example, as it concerns the target, or of the target; None if
        it has no tokens."""
        at, side, examples, function = (target, *train_index), "target", self.target, self._target_scores
        if train_index:
            side, examples, function = "train", self.train, self._train_scores
        example = examples[at[-1]]
        if function is None or not example.tokens:
            return None
        what, array = f"{side}_token_scores({', '.join(map(str, at))})", as_array(function(*at)).astype(np.float64)
        if example.mask is not None and array.shape == example.mask.shape:
            array = array[example.mask]
        if array.shape != (len(example.tokens),):
            raise ValueError(
                f"{what} must give {len(example.tokens)} numbers, one for each token, got shape {array.shape}; let it "
                "give one for each"
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"{what} gives {array[~np.isfinite(array)][0]}, and the scores of tokens must be finite; give 0 where "
                "there is none"
            )
        return array
