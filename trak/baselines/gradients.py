"""Inner products of gradients: dot product, cosine, TracIn."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from trak.baselines.base import LoadedCheckpoint, register_baseline
from trak.baselines.gradient_features import GradientBaseline, Gradients
from trak.gradients import MEMORY_BUDGET, ProjectedRows
from trak.projectors import Identity, Projector, make_projector


@register_baseline("gradient_dot")
class GradientDot(GradientBaseline):
    """Q_i ⟨∇f_t, ∇f_i⟩: by how much f_t grows in a step of SGD on the example i, for each unit of learning rate
    (Charpiat et al., "Input similarity from the neural network perspective", 2019).

    ∇f_i Q_i is the negative gradient of the loss of i, so this is the inner product of the target's
    output gradient with a step on i. Mean over checkpoints.
    """

    def __init__(
        self,
        *,
        projector: Projector | str | None = None,
        proj_dim: int = 2048,
        seed: int = 0,
        grad_wrt: str | Iterable[str] | None = None,
        engine: str = "auto",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """
        Args:
            projector: "sketch" (the default), "rademacher", "gaussian", an instance, or "identity" for
                exact products, which keeps the targets' whole gradients in memory.
            proj_dim: number of features that products are estimated from.
            seed: of the projection; each checkpoint gets one of its own from it.
            grad_wrt: parameters to differentiate by, as for `trak.TRAKer`.
            engine: as for `trak.TRAKer`.
            memory_budget: bytes that gradients and activations may take; larger batches are split.

        Raises:
            ValueError, TypeError: for invalid arguments.
        """
        self._make_projector = partial(make_projector, projector, proj_dim, seed)
        made = self._make_projector()
        self.projector = made.describe() | ({} if isinstance(made, Identity) else {"proj_dim": made.proj_dim})
        super().__init__(grad_wrt, engine, memory_budget)

    def blocks(self, loaded: LoadedCheckpoint) -> Iterator[tuple[int, int, Tensor]]:
        gradients, projector = Gradients(loaded, self.engine, self.memory_budget), self._make_projector()
        targets = torch.cat([rows.features for _, rows in gradients.rows(projector, loaded.targets)])
        for start, rows in gradients.rows(projector, loaded.train):
            yield start, 0, self._kernel(rows, targets)

    def _kernel(self, rows: ProjectedRows, targets: Tensor) -> Tensor:
        """Scores (b, m) of training examples for targets' features (m, k)."""
        return rows.out_to_loss_grad[:, None] * (rows.features @ targets.T)


@register_baseline("gradient_cosine")
class GradientCosine(GradientDot):
    """sign(Q_i) cos(∇f_t, ∇f_i): the dot product without the lengths of the gradients, which outliers dominate
    (used for data selection by Xia et al., "LESS", 2024). Mean over checkpoints.

    Q_i says in which direction and how strongly training on i moves f_i. Its sign alone keeps the
    meaning of the score's sign; with `weighted=True` its size counts too: Q_i cos(∇f_t, ∇f_i),
    which discounts examples that are fitted already. A gradient that is zero has cosine 0.
    """

    def __init__(
        self,
        *,
        weighted: bool = False,
        projector: Projector | str | None = None,
        proj_dim: int = 2048,
        seed: int = 0,
        grad_wrt: str | Iterable[str] | None = None,
        engine: str = "auto",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """
        Args:
            weighted: whether to multiply by Q_i and not by its sign alone.
            projector, proj_dim, seed, grad_wrt, engine, memory_budget: as for `GradientDot`; lengths are estimated
                from the projected gradients, as products are.
        """
        super().__init__(
            projector=projector,
            proj_dim=proj_dim,
            seed=seed,
            grad_wrt=grad_wrt,
            engine=engine,
            memory_budget=memory_budget,
        )
        self.weighted = weighted

    def _kernel(self, rows: ProjectedRows, targets: Tensor) -> Tensor:
        q = rows.out_to_loss_grad if self.weighted else rows.out_to_loss_grad.sign()
        return q[:, None] * cosines(rows.features, targets)


@register_baseline("tracin")
class TracIn(GradientDot):
    """Σ_c η_c Q_i ⟨∇f_t, ∇f_i⟩: how far the steps of SGD on i moved f_t, from checkpoints along one training run
    (TracInCP; Pruthi et al., "Estimating training data influence by tracing gradient descent", 2020).

    The paper traces the target's loss, whose fall is the output's rise times Q_t; here it is the
    output itself, as everywhere in this library.
    """

    def __init__(
        self,
        learning_rates: Sequence[float],
        *,
        projector: Projector | str | None = None,
        proj_dim: int = 2048,
        seed: int = 0,
        grad_wrt: str | Iterable[str] | None = None,
        engine: str = "auto",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """
        Args:
            learning_rates: η of each checkpoint: the learning rate there, times the number of steps on
                each example until the next checkpoint if the score is to be in units of f.
            projector, proj_dim, seed, grad_wrt, engine, memory_budget: as for `GradientDot`.

        Raises:
            ValueError: for a learning rate that is negative or not finite.
        """
        super().__init__(
            projector=projector,
            proj_dim=proj_dim,
            seed=seed,
            grad_wrt=grad_wrt,
            engine=engine,
            memory_budget=memory_budget,
        )
        self.learning_rates = [float(rate) for rate in learning_rates]
        for rate in self.learning_rates:
            if not 0 <= rate < float("inf"):
                raise ValueError(
                    f"learning_rates must be 0 or more and finite, got {rate}; give the rates that the checkpoints "
                    "were trained with"
                )

    def _weights(self, checkpoints: int) -> Sequence[float]:
        if checkpoints != len(self.learning_rates):
            raise ValueError(
                f"there are {len(self.learning_rates)} learning_rates for {checkpoints} checkpoints; give one for each"
            )
        return self.learning_rates


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (n, m) of rows (n, d) and (m, d); 0 where a row is zero."""
    return _unit(a) @ _unit(b).T


def _unit(rows: Tensor) -> Tensor:
    # By the largest entry first, so that squares neither overflow nor vanish.
    scaled = rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return scaled / scaled.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
