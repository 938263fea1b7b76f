"""The task names of the published package (traker 0.3.2). New tasks subclass `trak.tasks.Task`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trak.tasks import ImageClassification, TextClassification
from trak.tasks.classification import Classification

State = Mapping[str, Tensor]


class AbstractModelOutput(ABC):
    """Base of tasks written for the published package; they run here unchanged, with W = I."""

    @abstractmethod
    def get_output(self, model: nn.Module, weights: State, buffers: State, *example: Tensor) -> Tensor:
        """f(z; θ) of one example whose tensors have no batch dimension, a scalar."""

    @abstractmethod
    def get_out_to_loss_grad(self, model: nn.Module, weights: State, buffers: State, batch: Iterable[Tensor]) -> Tensor:
        """Q of each example in the batch, shape (B, 1) or (B,)."""


class _Functional(nn.Module):
    """A module that runs another one with given weights and buffers."""

    def __init__(self, model: nn.Module, weights: State, buffers: State) -> None:
        super().__init__()
        self._call = (model, {**weights, **buffers})
        self.forward = model.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        model, state = self._call
        return torch.func.functional_call(model, state, args, kwargs)


class ImageClassificationModelOutput(AbstractModelOutput):
    """Published name of `trak.tasks.ImageClassification`, to subclass in the published way."""

    _task: type[Classification] = ImageClassification

    def __init__(self, temperature: float = 1.0) -> None:
        self.loss_temperature = temperature

    def get_output(self, model: nn.Module, weights: State, buffers: State, *example: Tensor) -> Tensor:
        batch = tuple(t.unsqueeze(0) for t in example)
        return self._task(self.loss_temperature).output(_Functional(model, weights, buffers), batch).sum()

    def get_out_to_loss_grad(self, model: nn.Module, weights: State, buffers: State, batch: Iterable[Tensor]) -> Tensor:
        margin = self._task(self.loss_temperature).output(_Functional(model, weights, buffers), tuple(batch))
        return torch.sigmoid(-margin).detach().unsqueeze(-1)


class IterativeImageClassificationModelOutput(ImageClassificationModelOutput):
    """The same; the engine that differentiates is chosen by `TRAKer`, not by the task."""


class TextClassificationModelOutput(ImageClassificationModelOutput):
    """Published name of `trak.tasks.TextClassification`, to subclass in the published way."""

    _task = TextClassification


TASK_TO_MODELOUT = {
    "image_classification": ImageClassificationModelOutput,
    "iterative_image_classification": IterativeImageClassificationModelOutput,
    "text_classification": TextClassificationModelOutput,
}
