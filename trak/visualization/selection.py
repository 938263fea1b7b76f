"""Which targets are looked at, beside which training examples: what `show` and `report` have in common."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from trak.scoring import TopK
from trak.visualization.examples import Example, Examples, at, check_one_for_each

Array = np.ndarray[Any, Any]


class RankedExamples(Protocol):
    """What is needed of an attribution."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n_train, n_targets)."""

    @abstractmethod
    def top(self, k: int | None = None, bottom: bool = False) -> TopK:
        """The k highest or lowest scores of each target."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the scores are of and how they were made, ready for JSON."""


class Neighbour(NamedTuple):
    """A training example at one end of a target's ranking."""

    train_index: int
    score: float


@dataclass(frozen=True)
class Row:
    """A target with both ends of its ranking, strongest first."""

    target: int
    helpful: tuple[Neighbour, ...]
    """The highest scores."""
    harmful: tuple[Neighbour, ...]
    """The lowest."""


class Selection:
    """Targets, and training examples beside them."""

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
            train_dataset, target_dataset: where `dataset[i]` is an example: a data set of torch's or Hugging Face's, a
                list of strings, an array of images, columns (a tuple, a dict or a DataFrame, read by position), or a
                DataLoader in order. Without one, only numbers are seen.
            targets: which to look at; by default all.
            k: how many training examples at either end; by default 5, or n_train if that is less.
            train_labels, target_labels: one for each example, in place of those that the examples carry.
            predicted_labels: what the model says, one for each target.
            label_names: names of labels that are numbers.
            display: from an example as the data set gives it to what is to be seen: an image, a text, a list of tokens,
                or a tuple or dict of them; by default that is told by their types.
            tokenizer: with `decode`, or a function, from the number of a token to its text.
            train_token_scores: for (target, train_index), a number for each token of the training example: its shade.
            target_token_scores: for a target, a number for each of its tokens.

        Raises:
            ValueError: if a target is out of range or repeated, or a data set or a list of labels has another length
                than the attribution.
            TypeError: if a data set can't be asked for an example.
        """
        train, count = attribution.shape
        self.attribution = attribution
        self.targets = check_targets(range(count) if targets is None else targets, count)
        self.k = min(5, train) if k is None else k
        options: dict[str, Any] = {"label_names": label_names, "display": display, "tokenizer": tokenizer}
        self.train = Examples(train_dataset, train, "train_dataset", labels=train_labels, **options)
        self.target = Examples(target_dataset, count, "target_dataset", labels=target_labels, **options)
        if predicted_labels is not None:
            check_one_for_each(predicted_labels, "predicted_labels", count, "targets")
        self._predicted = predicted_labels
        self._train_scores, self._target_scores = train_token_scores, target_token_scores

    def rows(self) -> Iterator[Row]:
        """A row for each target."""
        helpful, harmful = self.attribution.top(self.k), self.attribution.top(self.k, bottom=True)
        for target in self.targets:
            yield Row(target, _neighbours(helpful, target), _neighbours(harmful, target))

    def predicted(self, target: int) -> str | None:
        """The label that was predicted, in words."""
        return None if self._predicted is None else self.target.name(at(self._predicted, target))

    def train_token_scores(self, target: int, index: int) -> Array | None:
        """A number for each token of a training example, as it concerns the target; None if there are none.

        Raises:
            ValueError: if there are more or fewer than tokens, or they are not finite.
        """
        example: Example = self.train[index]
        if self._train_scores is None or not example.tokens:
            return None
        return _checked(self._train_scores(target, index), example, f"train_token_scores({target}, {index})")

    def target_token_scores(self, target: int) -> Array | None:
        """A number for each token of a target; otherwise as `train_token_scores`."""
        example: Example = self.target[target]
        if self._target_scores is None or not example.tokens:
            return None
        return _checked(self._target_scores(target), example, f"target_token_scores({target})")


def check_targets(targets: Sequence[int], count: int) -> list[int]:
    """The targets as plain numbers.

    Raises:
        ValueError: if there are none, or one is out of range or repeated.
        TypeError: if one is no integer.
    """
    found = np.asarray(targets).reshape(-1).tolist()
    if not found:
        raise ValueError(f"targets is empty: choose at least one of {count}")
    for target in found:
        if isinstance(target, bool) or not isinstance(target, int):
            raise TypeError(f"targets must be integers, got {target!r}; give their numbers")
        if not 0 <= target < count:
            raise ValueError(
                f"target {target} is out of range: there are {count} targets, from 0; choose from 0 to {count - 1}"
            )
    if len(set(found)) < len(found):
        twice = next(target for target in found if found.count(target) > 1)
        raise ValueError(f"targets has {twice} more than once; give each once")
    return found


def _neighbours(found: TopK, target: int) -> tuple[Neighbour, ...]:
    pairs = zip(found.indices[target], found.scores[target], strict=True)
    # As short as a float32 can be told by.
    return tuple(Neighbour(int(index), float(str(score))) for index, score in pairs)


def _checked(scores: Any, example: Example, what: str) -> Array:
    array = np.asarray(scores.detach().cpu() if hasattr(scores, "detach") else scores, np.float64)
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
