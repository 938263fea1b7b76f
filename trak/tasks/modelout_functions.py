"""The task names of the published package (traker 0.3.2). New tasks subclass `trak.tasks.Task`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.tasks.classification import Classification, ImageClassification, TextClassification
from trak.tasks.clip import CLIP
from trak.tasks.negatives import NegativeBank

__all__ = [
    "TASK_TO_MODELOUT",
    "AbstractModelOutput",
    "CLIPModelOutput",
    "ImageClassificationModelOutput",
    "IterativeImageClassificationModelOutput",
    "TextClassificationModelOutput",
]

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
        return self._margins(model, weights, buffers, (t.unsqueeze(0) for t in example)).sum()

    def get_out_to_loss_grad(self, model: nn.Module, weights: State, buffers: State, batch: Iterable[Tensor]) -> Tensor:
        return torch.sigmoid(-self._margins(model, weights, buffers, batch)).detach().unsqueeze(-1)

    def _margins(self, model: nn.Module, weights: State, buffers: State, batch: Iterable[Tensor]) -> Tensor:
        return self._task(self.loss_temperature).output(_Functional(model, weights, buffers), tuple(batch))


class IterativeImageClassificationModelOutput(ImageClassificationModelOutput):
    """The same; the engine that differentiates is chosen by `TRAKer`, not by the task."""


class TextClassificationModelOutput(ImageClassificationModelOutput):
    """Published name of `trak.tasks.TextClassification`, to subclass in the published way."""

    _task = TextClassification


class CLIPModelOutput(CLIP):
    """Published name of `trak.tasks.CLIP`. `get_embeddings` is to be called before the task is given to `TRAKer`."""

    def __init__(self, temperature: float | None = None, simulated_batch_size: int = 300) -> None:
        """
        Args:
            temperature: ⟨image, text⟩ is multiplied by it, as published; None for the model's logit scale.
            simulated_batch_size: `batch_size` of `trak.tasks.CLIP`.
        """
        super().__init__(batch_size=simulated_batch_size, temperature=1 / temperature if temperature else temperature)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        overridden = {"get_output", "get_out_to_loss_grad"} & set(vars(cls))
        if overridden:
            raise TypeError(
                f"{cls.__name__} overrides {' and '.join(sorted(overridden))}, which CLIPModelOutput does not have; "
                "write a subclass of AbstractModelOutput, or of trak.tasks.CLIP and override its output and weights"
            )

    def get_embeddings(
        self,
        model: nn.Module,
        loader: Iterable[Any] = (),  # that a call on the class gets as far as its error
        batch_size: int | None = None,
        embedding_dim: int | None = None,
        size: int = 50_000,
        preprocess_fn_img: Callable[[Any], Any] | None = None,
        preprocess_fn_txt: Callable[[Any], Any] | None = None,
    ) -> None:
        """Draw this task's negatives; they are embedded anew for each checkpoint.

        Args:
            model: not used: every checkpoint is embedded when it is loaded.
            loader: yields (images, texts).
            batch_size, embedding_dim: not used: they follow from the data and the model.
            size: how many examples to draw from, at most.
            preprocess_fn_img, preprocess_fn_txt: applied to a batch's images and texts, so that they have
                the form of the batches that are attributed.

        Raises:
            ValueError: as `trak.tasks.CLIP`.
            TypeError: when it is called on the class.
        """
        if not isinstance(self, CLIPModelOutput):
            raise TypeError(
                f"get_embeddings was called on the class, with {type(self).__name__}, and negatives belong to a task, "
                "no more to the class; make one: task = CLIPModelOutput(); task.get_embeddings(model, loader, ...); "
                "or task = trak.tasks.CLIP(bank=loader)"
            )

        def pairs() -> Iterator[Batch]:
            left = size
            for images, texts in loader:
                batch = (
                    images if preprocess_fn_img is None else preprocess_fn_img(images),
                    texts if preprocess_fn_txt is None else preprocess_fn_txt(texts),
                )
                yield batches.take(batch, 0, min(left, batches.size(batch)))
                left -= batches.size(batch)
                if left <= 0:
                    return

        self._bank = NegativeBank(pairs(), self.batch_size, self.seed)


TASK_TO_MODELOUT = {
    "image_classification": ImageClassificationModelOutput,
    "clip": CLIPModelOutput,
    "iterative_image_classification": IterativeImageClassificationModelOutput,
    "text_classification": TextClassificationModelOutput,
}
