"""Notes that name the batch in which an error occurred."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

import torch
from torch import nn

from trak.inputs import batches
from trak.inputs.batches import Batch


@contextmanager
def describe_failing_batch(
    model: nn.Module, batch: Batch, first: int, where: str, memory_budget: int
) -> Iterator[None]:
    """Add to an error the batch that it is about, by the index of its first example and by `where`, the set and the
    checkpoint in words; to an error of the user's model or task, or of torch, also a remedy."""
    try:
        yield
    except Exception as error:
        place = f"a batch of the {where} (row 0 of the batch is example {first})"
        modules = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
        if not modules[-1].startswith("trak."):
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
