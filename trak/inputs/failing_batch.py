"""Notes that name the batch in which an error occurred."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trak.inputs import batches
from trak.inputs.batches import Batch


@contextmanager
def describe_failing_batch(
    model: nn.Module, batch: Batch, first: int, where: str, memory_budget: int
) -> Iterator[None]:
    """Add to an error the batch that it is about; to an error of the user's model or task, or of torch, also a remedy.

    Args:
        model: the model.
        batch: the batch.
        first: the index of its first example.
        where: the set and the checkpoint, in words.
        memory_budget: bytes that the model may take.
    """
    try:
        yield
    except Exception as error:
        place = f"a batch of the {where} (row 0 of the batch is example {first})"
        if not _is_raised_by_trak(error):
            found = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in batches.tensors(batch))
            remedy = (
                f"set a memory_budget of less than {memory_budget} bytes, or use a smaller model"
                if isinstance(error, torch.OutOfMemoryError)
                else "give batches of the shapes and dtypes that the model was trained on, or a task that fits them"
                + _other_dtype(model, batch)
            )
            error.add_note(f"The model or the task failed on {place}, with tensors {found}; {remedy}.")
        elif where not in str(error):
            error.add_note(f"This is about {place}.")
        raise


def _other_dtype(model: nn.Module, batch: Batch) -> str:
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    others = {t.dtype for t in batches.tensors(batch) if t.is_floating_point()} - {own}
    if own is None or not others:
        return ""
    return f"; the model's weights are {own}, so convert it (model.float() for torch.float32) or the batches"


def _is_raised_by_trak(error: Exception) -> bool:
    """Whether this library raised the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("trak.")
