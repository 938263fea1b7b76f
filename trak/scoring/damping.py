"""Damping, and the linear systems for the targets."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

DEFAULT_DAMPING = 3.0


@dataclass(frozen=True)
class Damping:
    """λ, relative (`value` · trace(K)/k) or, for `absolute`, `value` itself."""

    value: float = DEFAULT_DAMPING
    absolute: bool = False
    auto: bool = False
    """To be chosen, see `trak.scoring.auto_damping`; `value` is for where that can't be."""
    why: str = field(default="", compare=False)
    """How it was chosen."""

    @classmethod
    def make(cls, damping: float | str | None, lambda_reg: float | None) -> "Damping":
        """From the arguments that users give; "auto" if there is none.

        Raises:
            ValueError: if both are given, or one is negative, not finite or another word than "auto".
        """
        if damping is not None and lambda_reg is not None:
            raise ValueError(
                f"give damping (relative, got {damping}) or lambda_reg (absolute, got {lambda_reg}), not both"
            )
        if lambda_reg is None and damping in (None, "auto"):
            return cls(auto=True)
        name, value = ("damping", damping) if lambda_reg is None else ("lambda_reg", lambda_reg)
        try:
            value = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            wanted = "a number or 'auto'" if name == "damping" else "a number"
            raise ValueError(f"{name} must be {wanted}, got {value!r}; give one, or leave it out") from error
        if not 0 <= value < float("inf"):
            raise ValueError(
                f"{name} must be 0 or more and finite, got {value}; use damping={DEFAULT_DAMPING:g}, or leave it out"
            )
        return cls(value, absolute=lambda_reg is not None)

    def describe(self) -> dict[str, Any]:
        """For the record."""
        return {"lambda_reg" if self.absolute else "damping": "auto" if self.auto else self.value}

    def of(self, gram: Tensor) -> float:
        """λ for a Gram matrix (k, k); 1 for a matrix of zeros, which leaves the plain inner product."""
        if self.absolute:
            return self.value
        scale = float(gram.trace()) / len(gram)
        return self.value * scale if scale > 0 else 1.0


AUTO_DAMPING = Damping(auto=True)
"""λ is chosen, see `trak.scoring.auto_damping`."""


def factorize(gram: Tensor, damping: Damping) -> Tensor:
    """The Cholesky factor of K + λI, lower triangular (k, k), float64; a ValueError if that is singular."""
    lam = damping.of(gram)
    factor, info = torch.linalg.cholesky_ex(gram + lam * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    if int(info):
        raise ValueError(
            f"the damped Gram matrix is singular (λ = {lam:.3g}, k = {len(gram)}): with no more independent examples "
            f"than features the regression interpolates; use relative damping, such as damping={DEFAULT_DAMPING:g}"
        )
    return factor


def solve(gram: Tensor, targets: Tensor, damping: Damping) -> Tensor:
    """(K + λI)⁻¹ Φ_tᵀ, shape (k, m), for targets Φ_t of shape (m, k); otherwise as `factorize`."""
    return torch.cholesky_solve(targets.T.to(gram.dtype), factorize(gram, damping))
