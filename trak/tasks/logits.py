"""Logits, labels and margins of classification."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trak.inputs.batches import Batch, first_row
from trak.inputs.model_calls import call_with_inputs, read_labels


def extract_logits(output: Any) -> Tensor:
    """Return the logits in a model's result: a tensor, an object or mapping with `logits`, or a tuple."""
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    if hasattr(output, "logits"):
        return output.logits
    first = output[0] if isinstance(output, tuple | list) and output else output
    if isinstance(first, Tensor):
        return first
    raise TypeError(
        f"the model returned {type(output).__name__} without logits; "
        "return a tensor or an object with `.logits`, or write a Task whose output() reads it"
    )


def logits_and_labels(model: nn.Module, batch: Batch, what: str) -> tuple[Tensor, Tensor]:
    """Return the model's logits and the labels of (inputs, labels) or a dict of both."""
    labels = read_labels(batch, what)
    return extract_logits(call_with_inputs(model, batch, what)), labels


def check_tensor(labels: Any, of: str) -> None:
    """Raise unless labels are a tensor."""
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"expected labels as a tensor of {of}, got {type(labels).__name__}; convert them by torch.tensor, for "
            "instance in the loader's collate_fn"
        )


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Raise unless labels, shape (B,), are class indices for logits of shape (B, classes)."""
    expected = f"expected logits of shape (B, classes) with two classes or more, got {tuple(logits.shape)}"
    if logits.ndim == 2 and logits.shape[1] == 1:
        raise ValueError(
            f'{expected}; use task="regression" for a number to be predicted (num_labels=1), task="multi_label" for '
            "yes or no by one logit"
        )
    if logits.ndim != 2:
        raise ValueError(f"{expected}; let the model return such logits, or write a Task")
    check_tensor(labels, "class indices")
    got = f"expected labels of shape {tuple(logits.shape[:1])}, got {tuple(labels.shape)}"
    if (
        labels.ndim == 2
        and labels.shape[1] > 1
        and ((labels == 0) | (labels == 1)).all()
        and (labels.sum(1) == 1).all()
    ):
        raise ValueError(f"{got}, which look one-hot; use labels.argmax(1)")
    if labels.shape == logits.shape:
        raise ValueError(f'{got}; use task="multi_label" for a vector of labels in {{0, 1}}')
    check_classes(labels, logits)
    one = logits.new_ones((), dtype=torch.float64)
    if not (logits < 0).any() and torch.allclose(logits.double().sum(1), one, atol=1e-2):
        warnings.warn(
            "the model's outputs look like probabilities (none is below 0, and each row adds up to 1), and tasks read "
            "them as logits; leave the softmax at the end of the model out",
            stacklevel=2,
        )


def check_classes(labels: Tensor, logits: Tensor, ignored: int | None = None) -> None:
    """Raise unless labels, shape (B, ...), are class indices for logits of shape (B, ..., classes), or `ignored`."""
    check_tensor(labels, "class indices")
    if labels.shape != logits.shape[:-1]:
        column = labels.shape == (*logits.shape[:-1], 1)
        raise ValueError(
            f"expected labels of shape {tuple(logits.shape[:-1])}, got {tuple(labels.shape)}; "
            f"{'use labels.squeeze(-1)' if column else 'give one label for each position'}"
        )
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise ValueError(f"expected labels as integer class indices, got {labels.dtype}; use labels.long()")
    outside = (labels < 0) | (labels >= logits.shape[-1])
    if ignored is not None:
        outside &= labels != ignored
    if outside.any():
        raise ValueError(
            f"label out of range: {int(labels[outside][0])} in row {first_row(outside)} of the batch, but the model "
            f"has {logits.shape[-1]} classes (labels 0 to {logits.shape[-1] - 1}); number the classes from 0, or give "
            "the model a head of as many as there are"
        )


def half_to_float32(logits: Tensor) -> Tensor:
    """Logits in half precision as float32."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) of the labelled class, shape (...), from logits of shape (..., classes): TRAK, equation 14.

    Computed in float32 or better. A label that is no class gives NaN, which `Task.check` then
    explains: raising would need the labels' values, which torch.vmap and CUDA do not have at hand.
    """
    is_class = (labels >= 0) & (labels < logits.shape[-1])
    logits = half_to_float32(logits).flatten(0, -2)
    rows, column = torch.arange(len(logits), device=logits.device), labels.where(is_class, 0).long().flatten()
    # Indexing and scattering keep neither the logits nor, under this name, their copy for the backward pass.
    right = logits[rows, column]
    logits = logits.scatter(-1, column.unsqueeze(-1), -torch.inf)
    return (right - logits.logsumexp(-1)).reshape(labels.shape).where(is_class, torch.nan)
