"""Label issue scores: one number for each training example, higher for likelier mislabelled."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from trak._utils.typing import Array
from trak._utils.validation import check_option
from trak.evaluation.validation import Scores, as_scores, mean_over_targets
from trak.scoring import Damping, ScoringConfig
from trak.scoring.damping import factorize
from trak.store import FeatureStore, check_model_id

_ROWS_AT_ONCE = 4096
_POWERS = {"leverage": 0, "output": 1, "loss": 2}
SELF_DAMPING = 0.3
"""What a model memorizes of an example shows in directions of its own, which strong damping hides."""


def self_influence(
    source: Any,
    quantity: str = "loss",
    *,
    model_ids: Iterable[int] | None = None,
    weighting: str | None = None,
    damping: float = SELF_DAMPING,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Array:
    """Self-influence: what each training example does to itself, float64 (n_train,).

    That is mean_c φ_iᵀ(K_c + λ_c I)⁻¹φ_i · (mean_c Q_i)^p.
    Mislabelled and unusual examples, which a model can only memorize, have more of it (Feldman & Zhang, 2020; for
    influence functions Koh & Liang, 2017, section 5.4). The store's rows are streamed; each costs k² operations.

    Args:
        source: what `trak.attribute` returned, a `TRAKer`, or a store opened by `trak.store.open_store`.
        quantity: "loss", p = 2: by how much the example decreases its own loss. "output", p = 1: the example's score
            for its own output, the diagonal of attributing the training set to itself with
            normalize_checkpoints=False. "leverage", p = 0: its ridge leverage score, whatever its label says.
        model_ids: checkpoints to average over; by default those of `source`.
        weighting: "ggn" or "identity"; by default that of `source`, "ggn" for a store.
        damping: λ relative to trace(K)/k. Not that of `source`, which is for what training does to other examples.
        device: where to compute.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if there is no checkpoint, or one is not finalized; for an unknown quantity, or an invalid damping.
        TypeError: if `source` has no stored features.
        StoreError: if what is stored is damaged.
    """
    power = _POWERS[check_option(quantity, "quantity", _POWERS)]
    store = getattr(getattr(source, "experiment", source), "store", source)
    if not isinstance(store, FeatureStore):
        raise TypeError(
            "self_influence needs stored features: what trak.attribute returned, a TRAKer or an open store, got "
            f"{type(source).__name__}; pass one of these"
        )
    weighting = getattr(source, "scoring", ScoringConfig()).override(weighting=weighting).weighting
    relative = Damping.make(damping, None)
    if relative.auto:
        raise ValueError(f"self_influence has no targets to choose damping='auto' by: give a number ({SELF_DAMPING:g})")
    own = getattr(source, "model_ids", store.checkpoints())
    ids = [check_model_id(i) for i in (own if model_ids is None else model_ids)]
    if not ids:
        raise ValueError(
            "no checkpoint to average over: model_ids is empty; leave it out for all, or featurize a checkpoint first"
        )
    n = store.config.train_set_size
    kernel, q = np.zeros(n), np.zeros(n)
    with tqdm(total=n * len(ids), desc="self-influence", unit="ex", disable=not progress) as bar:
        for model_id in ids:
            gram = torch.from_numpy(store.gram(model_id, weighting)).to(device)
            store.verify(model_id)
            table, factor = store.table(model_id), factorize(gram, relative)
            scales = table.scales()
            for start, stop, rows in table.features.blocks(_ROWS_AT_ONCE):
                features = torch.from_numpy(rows).to(device=device, dtype=torch.float64)
                if scales is not None:
                    features = features * torch.from_numpy(scales[start:stop, None]).to(device)
                whitened = torch.linalg.solve_triangular(factor, features.T, upper=False)
                kernel[start:stop] += whitened.square().sum(dim=0).cpu().numpy() / len(ids)
                bar.update(stop - start)
            q += table.column("out_to_loss_grad") / len(ids)
    return kernel * q**power


def harm_scores(scores: Scores) -> Array:
    """How much each training example decreases the targets' outputs: minus the mean of its scores over targets,
    float64 (n_train,). The targets are to be examples whose labels are trusted.

    Args:
        scores: (n_train, n_targets), or anything with such `.scores`.

    Raises:
        ValueError: for scores that are not finite, or of another shape.
    """
    return -mean_over_targets(as_scores(scores))
