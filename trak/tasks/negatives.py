"""The bank of examples that serve as negatives of all others."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from trak._utils.counter_random import random_words, stream_key
from trak.inputs import batches
from trak.inputs.batches import Batch
from trak.inputs.modes import eval_mode
from trak.inputs.weights import WeightsSnapshot, are_functorch_wrapped, device_of
from trak.tasks.image_text import ImageTextBatch, check_captions, embed, read_image_text_batch

_BATCH_SIZE = 64


class NegativeBank:
    """Examples of a data set, drawn uniformly without replacement, and their embeddings by one model.

    An example's place in the draw is a hash of its data and the seed: the same examples are drawn
    whatever the order and the batches in which the data comes, and of equal examples one.
    """

    def __init__(self, data: Iterable[Batch] | Dataset[Any], size: int, seed: int) -> None:
        """Draw `size` examples of `data`, which yields batches of pairs, or is a Dataset of single pairs; read once."""
        self.size = size
        drawn, self.layout = _draw(data, size, stream_key("trak bank", seed))
        if len(drawn) < size:
            raise ValueError(
                f"the bank holds {len(drawn)} different examples, and the simulated batch has {size}: give a larger "
                "bank or a smaller batch_size"
            )
        self.hashes = torch.tensor([found for found, _ in drawn])
        self.digest = hashlib.blake2b(batches.raw_bytes(self.hashes).tobytes(), digest_size=8).hexdigest()
        self._groups = list(_group_by_shape([example for _, example in drawn]))
        self._embedded: tuple[WeightsSnapshot, Tensor, Tensor] | None = None

    def check_layout(self, pairs: ImageTextBatch) -> None:
        """Raise a ValueError for pairs of another layout, whose own pair could not be found in the bank."""
        if pairs.layout != self.layout:
            raise ValueError(
                f"the batch has {pairs.layout}, and the bank has {self.layout}: an example could not be told from its "
                "own negatives; give the bank the data in the form of the batches"
            )

    def excluded(self, pairs: ImageTextBatch) -> Tensor:
        """Mask of the bank's examples that are not negatives of each pair, bool (B, size).

        It is one in each row: the pair itself, or else the last, so that every pair has equally many.
        """
        same = pairs.hashes()[:, None] == self.hashes.to(pairs.tokens.device)
        among_others = same[:, :-1]
        return torch.cat((among_others, ~among_others.any(1, keepdim=True)), 1)

    def embeddings(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The embeddings of the bank's images and texts, (size, d) each, constants; computed again when the model's
        weights have changed since the last call."""
        if self._embedded is None or not self._embedded[0].matches(model):
            self._embedded = None
            if are_functorch_wrapped(model):
                raise ValueError(
                    f"the bank was not embedded by the weights that {type(model).__name__} has now, and can't be "
                    "inside of torch.func's transforms; call the task's prepare(model) before, after every change of "
                    "the weights"
                )
            self._embedded = self._embed(model)
        _, images, texts = self._embedded
        return images, texts

    def _embed(self, model: nn.Module) -> tuple[WeightsSnapshot, Tensor, Tensor]:
        rows: dict[int, tuple[Tensor, Tensor]] = {}
        device = device_of(model)
        with torch.inference_mode(False), torch.no_grad(), eval_mode(model):
            for places, batch in self._groups:
                found = embed(model, batches.to_device(batch, device))
                rows |= zip(places, zip(found.images, found.texts, strict=True), strict=True)
            images, texts = (torch.stack(part) for part in zip(*(rows[i] for i in range(self.size)), strict=True))
            return WeightsSnapshot(model), images, texts

    def __getstate__(self) -> dict[str, Any]:
        # The embeddings belong to a model of this process.
        return {**vars(self), "_embedded": None}


def _draw(data: Iterable[Batch] | Dataset[Any], size: int, key: int) -> tuple[list[tuple[int, Batch]], str]:
    """The hash and the example of the smallest priorities, and the layout that all examples share."""
    kept: dict[int, tuple[int, Batch]] = {}
    bound, layout = float("inf"), ""
    for batch in DataLoader(data, _BATCH_SIZE) if isinstance(data, Dataset) else data:
        if isinstance(batch, Tensor | str):
            raise ValueError(
                f"the bank yields {type(batch).__name__}, expected batches; pass a list of batches or a DataLoader, a "
                "single batch as bank=[batch]"
            )
        batch = batches.to_device(batch, torch.device("cpu"))
        try:
            pairs = read_image_text_batch(batch)
            check_captions(pairs, "a batch")
        except ValueError as error:
            raise ValueError(f"in the bank: {error}") from error
        layout = layout or pairs.layout
        if pairs.layout != layout:
            raise ValueError(f"the bank holds {layout}, and {pairs.layout}; give all of its examples one form")
        hashes = pairs.hashes()
        for i, (found, priority) in enumerate(zip(hashes.tolist(), random_words(key, hashes).tolist(), strict=True)):
            if priority < bound and priority not in kept:
                # A copy, since a view would hold the whole batch.
                kept[priority] = found, batches.map_tensors(torch.clone, batches.take(batch, i, i + 1))
        if len(kept) > size:
            kept = dict(sorted(kept.items())[:size])
            bound = max(kept)
    return [one for _, one in sorted(kept.items())], layout


def _group_by_shape(examples: list[Batch]) -> Iterator[tuple[list[int], Batch]]:
    """Batches of examples of one shape, with their places in the bank."""
    places: dict[tuple[torch.Size, ...], list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(tuple(t.shape for t in batches.tensors(example)), []).append(place)
    for alike in places.values():
        for start in range(0, len(alike), _BATCH_SIZE):
            chosen = alike[start : start + _BATCH_SIZE]
            columns = zip(*(batches.tensors(examples[i]) for i in chosen), strict=True)
            yield chosen, batches.replace_tensors(examples[chosen[0]], [torch.cat(column) for column in columns])
