"""Classification of tokens by logits."""

from typing import Any

from torch import Tensor, nn

from trak.inputs.model_calls import call_by_keyword
from trak.tasks.logits import extract_logits
from trak.tasks.registry import register_task
from trak.tasks.text_classification import LAYOUTS
from trak.tasks.token_task import TokenTask


@register_task("token_classification")
class TokenClassification(TokenTask):
    """A class for each token, such as transformers' `AutoModelForTokenClassification`, or for masked ones
    (`AutoModelForMaskedLM`).

    Batches are as for `TextClassification`, with labels (B, L), -100 for tokens without.
    """

    layouts = LAYOUTS

    def logits(self, model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return extract_logits(call_by_keyword(model, batch))
