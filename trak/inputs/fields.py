"""Names under which a batch holds inputs and labels."""

from collections.abc import Mapping, Sequence
from typing import Any

INPUT_KEYS = ("pixel_values", "images", "image", "x", "inputs")
LABEL_KEYS = ("labels", "label", "label_ids", "y", "target", "targets")
IGNORED = -100
"""The label of what is not to be predicted, as in torch's cross-entropy."""


def find_key(batch: Mapping[str, Any], keys: Sequence[str], what: str) -> str:
    """The first of `keys` in a dict batch."""
    for key in keys:
        if batch.get(key) is not None:
            return key
    raise ValueError(
        f"the batch has no {what}: expected one of {', '.join(keys)}, got {', '.join(batch) or 'nothing'}; rename "
        "yours, or write a Task that reads it"
    )
