"""Contrastive image-text models: CLIP and SigLIP."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from trak._utils.validation import is_integer, is_number
from trak.inputs.batches import Batch
from trak.tasks.base import Task
from trak.tasks.image_text import check_captions, embed, read_image_text_batch
from trak.tasks.negatives import NegativeBank
from trak.tasks.registry import register_task


@register_task("clip")
class CLIP(Task):
    """How much more an image and its caption belong together than with others', for contrastive image-text models.

    The loss of a pair (x_i, y_i) in a batch is ℓ = -log p₁ - log p₂, with p₁ the probability that the
    model gives to the right caption among the batch's for x_i, and p₂ that of the right image for y_i
    (Radford et al., "Learning transferable visual models from natural language supervision", 2021). Each direction has
    its margin f_d = log(p_d / (1 - p_d)), so that -log p_d = softplus(-f_d). For embeddings φ of
    images and ψ of texts of length 1, and s the model's logit scale::

        f₁ = -log Σ_{j≠i} exp(s⟨φ(x_i), ψ(y_j)⟩ - s⟨φ(x_i), ψ(y_i)⟩),
        f₂ = -log Σ_{j≠i} exp(s⟨φ(x_j), ψ(y_i)⟩ - s⟨φ(x_i), ψ(y_i)⟩),

    and the output is f = f₁ + f₂ (TRAK, Park et al., 2023, section 5.1).

    A model that has a logit bias b was trained by the sigmoid loss (SigLIP; Zhai et al., "Sigmoid loss for language
    image pre-training", 2023, equation 1). There p_d is the probability that the pair is told to be
    one, and each combination with a negative to be none: p_d = σ(m_ii) Π_{j≠i} σ(-m_ij) with
    m_ij = s⟨φ(x_i), ψ(y_j)⟩ + b; margins, output and weights are the same functions of it.

    The others j come from a bank and not from the caller's batch, so that an example has one f in
    every batch: `batch_size` - 1 examples drawn from data that the user gives, never one whose image
    and caption are the example's own. Their embeddings are constants, computed again for every
    checkpoint; only the example's own embeddings and s and b are differentiated.

    ℓ is not a function of f alone. Q and R are derivatives along the path on which both margins take
    equal parts of f, which is exact where f₁ and f₂ have one gradient::

        Q = ((1 - p₁) + (1 - p₂)) / 2,    R = (p₁(1 - p₁) + p₂(1 - p₂)) / 4.

    Softening T divides both margins: p_d = σ(f_d / T), and Q is multiplied by T.

    Batches are (images, tokens), (images, tokens, attention_mask), or a dict with one of
    "pixel_values", "images", "image" and one of "input_ids", "tokens", "text", "texts", "captions".
    For the models see `trak.tasks.image_text.embed`. Captions may be padded to different lengths if they
    come with an attention_mask.
    """

    output_description = (
        "how much more image and caption belong together than with others': the log-odds of both directions, added"
    )

    def __init__(
        self,
        bank: Iterable[Batch] | Dataset[Any] | None = None,
        batch_size: int = 300,
        *,
        seed: int = 0,
        temperature: float | None = None,
    ) -> None:
        """
        Args:
            bank: where negatives are drawn from: yields batches of the form of those that are attributed,
                without random augmentation, or is a Dataset of single pairs; usually the training set. It is
                read once, here, and the examples drawn are kept.
            batch_size: size of the simulated batch, in which each example has batch_size - 1 negatives;
                best that of training.
            seed: of the draw.
            temperature: ⟨φ, ψ⟩ is divided by it, instead of multiplied by the model's logit scale.

        Raises:
            ValueError: if the bank has fewer different examples than batch_size, or no pairs; for
                arguments that can't be.
        """
        if not is_integer(batch_size, 2):
            raise ValueError(
                f"batch_size must be an integer, at least 2, got {batch_size!r}; give the one that the model was "
                "trained with"
            )
        if temperature is not None and not (is_number(temperature) and 0 < temperature < float("inf")):
            raise ValueError(
                f"temperature must be positive and finite, or None for the model's own, got {temperature!r}; give the "
                "one that the model was trained with"
            )
        self.batch_size, self.seed = int(batch_size), operator.index(seed)
        self.temperature = None if temperature is None else float(temperature)
        self._bank = None if bank is None else NegativeBank(bank, self.batch_size, self.seed)

    @property
    def bank(self) -> NegativeBank:
        """The negatives.

        Raises:
            ValueError: if the task was made without.
        """
        if self._bank is None:
            raise ValueError(
                "the task 'clip' has no bank to draw negatives from: give it one, "
                f"task=trak.tasks.CLIP(bank=train_loader, batch_size={self.batch_size})"
            )
        return self._bank

    def prepare(self, model: nn.Module) -> None:
        self.bank.embeddings(model)

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.margins(model, batch).sum(1)

    def margins(self, model: nn.Module, batch: Batch) -> Tensor:
        """f₁ and f₂ of each example, shape (B, 2): of its caption for its image, of its image for its caption."""
        own, others, sigmoid = self._logits(model, batch)
        if not sigmoid:
            return own - others.logsumexp(-1)
        # Each direction's loss; its margin is -log(exp(loss) - 1).
        loss = -F.logsigmoid(own) - F.logsigmoid(-others).sum(-1)
        return -loss - torch.log(-torch.expm1(-loss))

    def loss(self, output: Tensor) -> Tensor:
        """ℓ(f) of an example that both directions are equally sure of: 2 softplus(-f/2), shape (B,)."""
        return -2 * F.logsigmoid(output / 2)

    def weights(self, model: nn.Module, batch: Batch, output: Tensor) -> tuple[Tensor, Tensor]:
        return self.weights_at_temperature(model, batch, output, 1.0)

    def weights_at_temperature(
        self, model: nn.Module, batch: Batch, output: Tensor, loss_temperature: float
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            first, second = self.margins(model, batch).to(output.dtype).unbind(1)
            difference = first - second
            margins = torch.stack((output + difference, output - difference), 1) / (2 * loss_temperature)
            wrong = torch.sigmoid(-margins)
            return loss_temperature * wrong.mean(1), (wrong * torch.sigmoid(margins)).mean(1) / 2

    def correct(self, model: nn.Module, batch: Batch, output: Tensor) -> Tensor | None:
        """Whether the example's caption is the nearest to its image, and its image to its caption, bool (B,)."""
        own, others, _ = self._logits(model, batch)
        return (own > others.amax(-1)).all(1)

    def check(self, model: nn.Module, batch: Batch) -> None:
        pairs = read_image_text_batch(batch)
        self.bank.check_layout(pairs)
        check_captions(pairs, "the batch")
        embed(model, batch)

    def describe(self) -> dict[str, Any]:
        described = super().describe()
        described["settings"]["bank"] = self.bank.digest
        return described

    def _logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, bool]:
        """Of the example's own pair, (B, 1); of its image with the bank's texts and its text with the bank's images,
        (B, 2, batch_size), -inf for what is no negative; and whether the model was trained by the sigmoid loss."""
        pairs = read_image_text_batch(batch)
        self.bank.check_layout(pairs)
        images, texts = self.bank.embeddings(model)
        found = embed(model, batch)
        scale = found.scale if self.temperature is None else 1 / self.temperature
        if scale is None:
            raise TypeError(f"{type(model).__name__} has no logit_scale; give the task a temperature")
        own = scale * (found.images * found.texts).sum(-1, keepdim=True)
        others = scale * torch.stack((found.images @ texts.T, found.texts @ images.T), 1)
        if found.bias is not None:
            own, others = own + found.bias, others + found.bias
        # NaN is what `check` explains; to raise here would need values, which torch.vmap has not at hand.
        own = own.masked_fill(pairs.has_no_tokens()[:, None], torch.nan)
        others = others.masked_fill(self.bank.excluded(pairs)[:, None], -torch.inf)
        return own, others, found.bias is not None
