"""Base of tasks: the scalar output of an example that is differentiated, and the training loss of it."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trak.inputs import batches
from trak.inputs.batches import Batch


class Task(ABC):
    """One scalar output f(z; θ) per example and the training loss ℓ(f) as a function of it.

    A task of your own needs `output`, and `loss` unless the loss is softplus(-f), which is the
    cross-entropy when f is the margin log(p / (1 - p)) of the right class.
    """

    name: ClassVar[str | None] = None
    has_loss_temperature: ClassVar[bool] = True
    """Whether `weights` depends on the output that it is given."""
    output_description: ClassVar[str | Callable[..., str | None] | None] = None
    """A short description of f for readers of scores, or a function from `describe`'s settings to it; by default the
    first line of the docstring of `output`, or of the class."""

    def prepare(self, model: nn.Module) -> None:
        """Compute values shared by all examples of a checkpoint; nothing by default.

        Called whenever weights were loaded into `model`, before `output`, with the model in evaluation mode.
        """

    @abstractmethod
    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        """f(z; θ), shape (B,). `model` is called like the user's own module."""

    def loss(self, output: Tensor) -> Tensor:
        """ℓ(f), elementwise, shape (B,): by default softplus(-f)."""
        return -nn.functional.logsigmoid(output)

    @property
    def has_loss(self) -> bool:
        """Whether `loss` is the whole training loss, so that `weights` follows from it."""
        return type(self).weights is Task.weights

    def weights(self, model: nn.Module, batch: Batch, output: Tensor) -> tuple[Tensor, Tensor]:
        """Q = -dℓ/df and R = d²ℓ/df² of each example, shape (B,) each (TRAK, section 3.4).

        Derived from `loss` by autograd; override only what autograd can't know.
        """
        if getattr(self.loss, "__func__", None) is Task.loss:
            # Autograd's R cancels to 0 for a confident example; the closed form doesn't.
            return margin_weights(output)
        with torch.enable_grad():
            f = output.detach().requires_grad_()
            loss = self.loss(f)
            if loss.shape != f.shape:
                raise TypeError(
                    f"{type(self).__name__}.loss must be elementwise: it got shape {tuple(f.shape)} and returned "
                    f"{tuple(loss.shape)}; return one number for each output, without mean or sum"
                )
            if not loss.requires_grad:
                raise TypeError(
                    f"{type(self).__name__}.loss must be computed from its argument by torch operations, to be "
                    f"differentiated, and what it returned for shape {tuple(f.shape)} is not; remove detach, item and "
                    "numpy from it"
                )
            (slope,) = torch.autograd.grad(loss.sum(), f, create_graph=True)
            curvature = torch.zeros_like(f)
            if slope.requires_grad:
                (curvature,) = torch.autograd.grad(slope.sum(), f, materialize_grads=True)
        # Added to zeros, since autograd may return a zero without memory.
        return -slope.detach(), curvature.detach() + torch.zeros_like(f)

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        """Whether each example is predicted right, bool (B,); None for a task without right and wrong.

        By default where f > 0, as for a margin. Only `trak.evaluation` asks.
        """
        return output > 0

    def weights_at_temperature(
        self, model: nn.Module, batch: Batch, output: Tensor, loss_temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Q and R of the loss T²ℓ(f/T) with T = `loss_temperature`, shape (B,) each.

        Models are overconfident on their training examples, so Q at the model's own output underestimates the effect of
        removing one. For a squared error the loss is the same for every T.
        """
        if loss_temperature == 1:
            return self.weights(model, batch, output)
        q, r = self.weights(model, batch, output / loss_temperature)
        return q * loss_temperature, r

    def check(self, model: nn.Module, batch: Batch) -> None:
        """Raise a ValueError that says what is wrong with a batch, if something is."""

    @classmethod
    def describe_output(cls, settings: Mapping[str, Any]) -> str | None:
        """Describe f for a task with these settings of `describe`; None without a description."""
        for owner in cls.__mro__:
            # A description does not hold for a subclass that overrides the output.
            if (output_description := vars(owner).get("output_description")) is not None:
                return output_description(settings) if callable(output_description) else str(output_description)
            if "output" in vars(owner):
                break
        doc = (cls.output.__doc__ if cls.output is not Task.output else None) or cls.__doc__ or ""
        return next(filter(None, map(str.strip, doc.splitlines())), None)

    def describe(self) -> dict[str, Any]:
        """Name and settings, for the store's record."""
        return {"name": stored_name(type(self)), "settings": json_settings(self)}


def stored_name(task: type[Task]) -> str:
    """The name under which a store records a task."""
    # An inherited name would record a subclass as the task it changes.
    return vars(task).get("name") or task.__qualname__


def margin_weights(margin: Tensor) -> tuple[Tensor, Tensor]:
    """Q = σ(-f) and R = σ(f)σ(-f) of the loss softplus(-f)."""
    f = margin.detach()
    return torch.sigmoid(-f), torch.sigmoid(f) * torch.sigmoid(-f)


def json_settings(settings_of: object) -> dict[str, Any]:
    """An object's public attributes for JSON: tensors by their hash, values that JSON cannot hold by their type."""
    return {k: _json_value(v) for k, v in sorted(vars(settings_of).items()) if not k.startswith("_")}


def _json_value(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor):
        data = batches.raw_bytes(value).tobytes() if value.numel() else b""
        return {"shape": list(value.shape), "hash": hashlib.blake2b(data, digest_size=8).hexdigest()}
    try:
        return json.loads(json.dumps(value, default=lambda v: type(v).__name__))
    except (TypeError, ValueError):
        return type(value).__name__
