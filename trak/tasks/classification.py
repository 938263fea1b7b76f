"""What classification tasks share: the margin of the labelled class."""

from abc import abstractmethod

from torch import Tensor, nn

from trak.arguments import is_number
from trak.batches import Batch
from trak.tasks.base import Task
from trak.tasks.logits import check_labels, margins


class Classification(Task):
    """f is the margin log(p / (1 - p)) of the labelled class (TRAK, section 3.3)."""

    meaning = "log-odds of the labelled class, log(p / (1 − p))"

    def __init__(self, temperature: float = 1.0) -> None:
        """
        Args:
            temperature: the logits are divided by it, in the output and in the loss alike.

        Raises:
            ValueError: if it is not positive.
        """
        if not is_number(temperature) or not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature!r}; use 1 for none")
        self.temperature = float(temperature)

    @abstractmethod
    def logits_and_labels(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The model's logits (B, classes) and the labels (B,) of a batch."""

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        logits, labels = self.logits_and_labels(model, batch)
        return margins(logits / self.temperature, labels)

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        logits, labels = self.logits_and_labels(model, batch)
        return logits.argmax(-1) == labels

    def check(self, model: nn.Module, batch: Batch) -> None:
        check_labels(*self.logits_and_labels(model, batch))
