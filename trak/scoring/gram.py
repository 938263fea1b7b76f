"""The Gram matrix of a checkpoint's features."""

import math
from typing import Any

import numpy as np
import torch

from trak._utils.validation import check_option
from trak.store import Table

WEIGHTINGS = ("ggn", "identity")
_BLOCK_ROWS = 4096
_PANELS = 8


def check_weighting(weighting: str) -> str:
    """The name, if it is one of `WEIGHTINGS`.

    Raises:
        ValueError: otherwise.
    """
    return check_option(weighting, "weighting", WEIGHTINGS)


def gram(table: Table, weighting: str, device: torch.device | str = "cpu") -> np.ndarray[Any, np.dtype[np.float64]]:
    """K = ΦᵀWΦ, shape (k, k), with W = I ("identity"; TRAK, section 3.2) or W = diag(R)
    ("ggn": the generalised Gauss-Newton matrix; Schraudolph, 2002).

    Products of 4,096 rows are taken in the features' precision (float32 for float16 and int8) and summed in
    float64; only the upper half is computed.

    Raises:
        ValueError: if W has a negative entry or none but zeros, or the products overflow.
    """
    k = table.features.shape[1]
    wide = torch.float64 if table.features.dtype == np.float64 else torch.float32
    if weighting == "ggn":
        _check_curvature(table)
    panel = math.ceil(k / _PANELS)
    total = torch.zeros(k, k, dtype=torch.float64, device=device)
    for chunk, indices in table.chunks():
        # Rows are multiplied by √W times their scale.
        factor = torch.ones(len(indices), dtype=wide)
        if weighting == "ggn":
            factor = torch.from_numpy(table.column("out_to_loss_curvature", indices)).to(wide).sqrt()
        if (scales := table.scales(indices)) is not None:
            factor = factor * torch.from_numpy(scales)
        factor = factor.to(device)
        for start, stop, rows in table.features.blocks(_BLOCK_ROWS, chunk):
            these = slice(start - indices[0], stop - indices[0])
            weighted = torch.from_numpy(rows).to(device=device, dtype=wide) * factor[these, None]
            for left in range(0, k, panel):
                total[left : left + panel, left:] += weighted[:, left : left + panel].T @ weighted[:, left:]
    if not torch.isfinite(total).all():
        raise ValueError(
            "the Gram matrix of the features is not finite: the features are too large to be multiplied in "
            f"{str(wide).removeprefix('torch.')}; scale the task's output down, or differentiate by fewer parameters"
        )
    upper = total.triu()
    return (upper + upper.triu(1).T).cpu().numpy()


def _check_curvature(table: Table) -> None:
    some = False
    for _, indices in table.chunks():
        curvature = table.column("out_to_loss_curvature", indices)
        if (curvature < 0).any():
            row = int(np.argmax(curvature < 0))
            raise ValueError(
                f"the loss is not convex in the output: its curvature is {float(curvature[row]):.3g} for example "
                f"{int(indices[row])}; use weighting='identity'"
            )
        some = some or bool(curvature.any())
    if not some:
        raise ValueError(
            f"the loss has no curvature for any of the {len(table)} examples (it is piecewise linear in the output, "
            "or everything is fitted perfectly), so that W = 0; use weighting='identity'"
        )
