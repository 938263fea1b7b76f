"""Similarity of the features that a layer computes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trak._utils.validation import check_option
from trak.baselines.base import CheckpointBaseline, IndexedLoader, LoadedCheckpoint, register_baseline
from trak.baselines.gradients import cosines
from trak.inputs import batches
from trak.inputs.batches import Batch

T = TypeVar("T")


class LayerFeatures:
    """Features of a named layer: its output or its input, flattened for each example."""

    def __init__(self, name: str, features_from: str = "output", pool: int | Sequence[int] | None = None) -> None:
        """
        Args:
            name: of the layer, as in `model.named_modules()`; "" is the model itself.
            features_from: the layer's "output" or "input"; of several tensors, the first.
            pool: dimensions to average over before flattening, the examples being dimension 0: 1 for
                tokens (B, positions, d), (2, 3) for images (B, channels, height, width). Where
                positions are tokens, those that the batch's "attention_mask" leaves out don't count.

        Raises:
            ValueError, TypeError: for invalid arguments.
        """
        if not isinstance(name, str):
            raise TypeError(f"layer must be the name of a module, got {name!r}; use a name of model.named_modules()")
        self.name, self.features_from = name, check_option(features_from, "features_from", ("output", "input"))
        self.pool = () if pool is None else (pool,) if isinstance(pool, int) else tuple(pool)
        if not all(isinstance(dim, int) and dim > 0 for dim in self.pool):
            raise ValueError(
                f"pool must be dimensions from 1 on (0 counts the examples), got {pool!r}; give those to average "
                "over, such as pool=1"
            )

    def iterate(
        self, loaded: LoadedCheckpoint, data: IndexedLoader, forward: Callable[[Batch], T], like: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor, T]]:
        """For each batch the index of its first example, its features (B, d) in float32, or float64 if they are, and
        what `forward`, which runs the model on it, returned. Features must have as many numbers as those of `like`."""
        for start, batch in data:
            with torch.no_grad():
                features, result = self._read(loaded.model, batch, partial(forward, batch))
            layer = f", layer {self.name!r}" if self.name else ""
            what = f"{data.what}, checkpoint {loaded.model_id}{layer}"
            if not features.is_floating_point():
                raise ValueError(
                    f"features of {what} are {features.dtype}, such as token ids; name a layer behind the embedding"
                )
            if like is not None and features.shape[1] != like.shape[1]:
                raise ValueError(
                    f"features of {what} have {features.shape[1]} numbers an example, others {like.shape[1]}: inputs "
                    "of several lengths; average over positions with pool, or pad all to one length"
                )
            bad = ~torch.isfinite(features).all(dim=1)
            if bad.any():
                raise ValueError(
                    f"features of example {start + int(bad.nonzero()[0])}, {what}, are not finite; look for NaN or "
                    "infinity in its input and in the checkpoint"
                )
            like = features = features if features.dtype == torch.float64 else features.float()
            yield start, features, result

    def _read(self, model: nn.Module, batch: Batch, forward: Callable[[], T]) -> tuple[Tensor, T]:
        modules = dict(model.named_modules())
        check_option(self.name, "layer", modules)
        seen: list[Any] = []

        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            seen.append(output if self.features_from == "output" else [*args, *kwargs.values()])

        handle = modules[self.name].register_forward_hook(keep, with_kwargs=True)
        try:
            result = forward()
        finally:
            handle.remove()
        # A task may run the model on one example after the other.
        found = [t for t in map(_first_tensor, seen) if t is not None and t.ndim]
        count = batches.size(batch)
        if not found or sum(map(len, found)) != count or len({t.shape[1:] for t in found}) > 1:
            raise ValueError(
                f"the {self.features_from} of layer {self.name!r} is not one tensor for each of the batch's {count} "
                f"examples, but {[tuple(t.shape) for t in found] or 'none'} in {len(seen)} calls; name a layer that is "
                "called once"
            )
        features = torch.cat(found).detach()
        return self._pooled(features, batch).flatten(1), result

    def _pooled(self, features: Tensor, batch: Batch) -> Tensor:
        if not self.pool:
            return features
        if max(self.pool) >= features.ndim:
            raise ValueError(
                f"pool={self.pool}, but the {self.features_from} of layer {self.name!r} is {tuple(features.shape)}; "
                "choose dimensions that it has"
            )
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        if self.pool == (1,) and isinstance(mask, Tensor) and mask.shape == features.shape[:2]:
            weights = mask.to(features)[(...,) + (None,) * (features.ndim - 2)]
            return (features * weights).sum(1) / weights.sum(1).clamp_min(1)
        return features.mean(self.pool)


@register_baseline("representation_similarity")
class RepresentationSimilarity(CheckpointBaseline):
    """⟨h_i, h_t⟩ or cos(h_i, h_t) of the features h that a layer computes (Hanawa et al., "Evaluation of
    similarity-based explanations", 2021). Mean over checkpoints.

    Knows nothing of labels: it says who looks alike to the model, not who pushed the output up.
    """

    def __init__(
        self,
        layer: str,
        metric: str = "cosine",
        *,
        features_from: str = "output",
        pool: int | Sequence[int] | None = None,
    ) -> None:
        """
        Args:
            layer, features_from, pool: where the features come from, see
                `trak.baselines.representations.LayerFeatures`; the input of the last linear layer is a usual choice.
            metric: "cosine" or "dot".

        Raises:
            ValueError, TypeError: for invalid arguments.
        """
        self._features = LayerFeatures(layer, features_from, pool)
        self.layer, self.metric = layer, check_option(metric, "metric", ("cosine", "dot"))
        self.features_from, self.pool = features_from, self._features.pool

    def blocks(self, loaded: LoadedCheckpoint) -> Iterator[tuple[int, int, Tensor]]:
        forward = partial(loaded.task.output, loaded.model)
        targets = torch.cat([features for _, features, _ in self._features.iterate(loaded, loaded.targets, forward)])
        for start, features, _ in self._features.iterate(loaded, loaded.train, forward, targets):
            yield start, 0, cosines(features, targets) if self.metric == "cosine" else features @ targets.T


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((t for t in map(_first_tensor, members) if t is not None), None)
