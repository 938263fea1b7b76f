"""Base of tasks whose examples hold several predictions: the tokens of a sequence, the labels of a vector."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trak._utils.validation import check_option
from trak.inputs.batches import Batch
from trak.tasks.base import Task, margin_weights

# Beyond it softplus(-m) and exp(-m) are equal, in float64 too.
_FAR = 30.0

_OUTPUT_DESCRIPTIONS = {
    "margin": "log-odds of the right tokens or labels, of the geometric mean of their probabilities",
    "mean_margin": "mean log-odds of the right tokens or labels",
    "cross_entropy": "mean log-probability of the right tokens or labels",
}


def _describe_mean_or_sum(settings: Mapping[str, Any]) -> str | None:
    """Describe the output that the settings choose."""
    found = _OUTPUT_DESCRIPTIONS.get(str(settings.get("output_kind")))
    return f"{found}, times their number" if found and settings.get("reduction") == "sum" else found


class MultiOutputTask(Task):
    """T predictions an example, each with a margin m_t = log(p_t / (1 - p_t)) of what is right and the loss
    softplus(-m_t) = -log p_t. The output f is one of

    - "margin", the default: the margin that all T predictions would have if they had the same and the
      example its loss, softplus(-f) = mean_t softplus(-m_t). So f = log(P / (1 - P)), P the geometric mean
      of the p_t, and the mean cross-entropy is a function of f alone, exactly: Q = 1 - P, R = P(1 - P),
      and Q ∇f is what a training step follows.
    - "mean_margin": mean_t m_t, with the loss softplus(-f), which is the cross-entropy where all m_t are
      equal and less than it elsewhere (Jensen). ∇f is mostly that of the surest predictions, since
      ∇m_t = ∇log p_t / (1 - p_t).
    - "cross_entropy": mean_t log p_t, with the loss -f, so Q = 1. That loss has no curvature in f; the task
      gives R = 1, so that K is the empirical Fisher matrix, W = I.

    With `reduction="sum"` f is T times that and the loss T ℓ(f / T): a sequence counts by its length, as it does
    in training on the mean over a batch's tokens. With "mean" every example counts the same.
    """

    output_description = staticmethod(_describe_mean_or_sum)

    def __init__(self, output: str = "margin", reduction: str = "mean") -> None:
        """
        Args:
            output: "margin", "mean_margin" or "cross_entropy".
            reduction: "mean" or "sum" over an example's predictions.

        Raises:
            ValueError: for other names.
        """
        self.output_kind = check_option(output, "output", OUTPUTS)
        self.reduction = check_option(reduction, "reduction", ("mean", "sum"))

    @abstractmethod
    def margins(self, model: nn.Module, batch: Batch) -> Tensor:
        """The margin of each prediction, (B, N); any number where there is none."""

    @abstractmethod
    def prediction_mask(self, batch: Batch) -> Tensor:
        """Mask of the predictions, bool (B, N)."""

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        mask = self.prediction_mask(batch)
        f = OUTPUTS[self.output_kind](self.margins(model, batch), mask)
        return f if self.reduction == "mean" else f * mask.sum(1)

    def loss(self, output: Tensor) -> Tensor:
        """ℓ(f): softplus(-f), or -f for "cross_entropy"; a ValueError for a sum of margins, whose f does not fix it."""
        if self.output_kind == "cross_entropy":
            return -output
        if not self.has_loss:
            raise ValueError(
                f"the loss of a sum of margins (reduction={self.reduction!r}) depends on how many they are; use "
                "reduction='mean'"
            )
        return super().loss(output)

    @property
    def has_loss(self) -> bool:
        return self.reduction == "mean" or self.output_kind == "cross_entropy"

    def weights(self, model: nn.Module, batch: Batch, output: Tensor) -> tuple[Tensor, Tensor]:
        if type(self).loss is not MultiOutputTask.loss:
            return super().weights(model, batch, output)
        if self.output_kind == "cross_entropy":
            return torch.ones_like(output), torch.ones_like(output)
        if self.reduction == "mean":
            return margin_weights(output)
        count = self.prediction_mask(batch).sum(1).to(output)
        q, r = margin_weights(output / count)
        return q, r / count


def _margin(margins: Tensor, mask: Tensor) -> Tensor:
    """-log(exp(ℓ) - 1) with ℓ = mean softplus(-m), by ℓ's logarithm: ℓ itself underflows for confident predictions."""
    far = margins > _FAR
    log_loss = torch.where(far, -margins, (-F.logsigmoid(margins.masked_fill(far, 0))).log())
    log_mean = log_loss.masked_fill(~mask, -torch.inf).logsumexp(1) - mask.sum(1).to(margins).log()
    far = log_mean < -_FAR
    loss = log_mean.masked_fill(far, 0).exp()
    return torch.where(far, -log_mean, -loss - (-torch.expm1(-loss)).log())


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1)


OUTPUTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "margin": _margin,
    "mean_margin": _mean,
    "cross_entropy": lambda margins, mask: _mean(F.logsigmoid(margins), mask),
}
