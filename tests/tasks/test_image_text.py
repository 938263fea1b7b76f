"""Batches of images with captions, and the interfaces of models that embed them."""

import pytest
import torch
from clip_models import cheap, make, pairs, without_caption
from torch import nn

from trak.tasks import CLIP


@pytest.mark.parametrize(
    ("name", "bank", "batch", "message"),
    [
        ("CLIPModel", pairs(9), pairs(3, length=13), "captions have 13 tokens, and the model .CLIPModel. takes 12"),
        ("CLIPModel", pairs(9, length=13), pairs(3), "captions have 13 tokens"),
        ("open_clip", cheap(9), pairs(3), "batch has .*with an attention_mask, and the bank has .*9 tokens without"),
        ("open_clip", cheap(9), (cheap(3)[0].double(), cheap(3)[1]), r"batch has .*float64.*bank has .*float32"),
        ("open_clip", cheap(9), (cheap(3)[0][:, :2], cheap(3)[1]), r"shape \(2, 8, 8\).*shape \(3, 8, 8\)"),
        ("open_clip", cheap(9), (cheap(3)[0], cheap(3)[1][:, :8]), "captions of 8 tokens .*captions of 9 tokens"),
        ("open_clip", cheap(9), (cheap(3)[0], cheap(2)[1]), "3 images for 2 captions"),
        ("open_clip", cheap(9), cheap(3)[0], "a batch of image-text pairs is .* got Tensor"),
        ("CLIPModel", pairs(9), without_caption(3, 1), "caption in row 1 of the batch is empty"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_is_refused_in_plain_words(name, bank, batch, message):
    task, model = CLIP([bank], 6), make(name)

    def use():
        task.prepare(model)
        task.check(model, batch)

    with pytest.raises(ValueError, match=message):
        use()


class NoFeatures(nn.Module):
    def __init__(self, found):
        super().__init__()
        self.weight, self.found = nn.Parameter(torch.ones(1)), found

    def forward(self, images, tokens):
        return self.found


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(3, 3),
        NoFeatures(torch.zeros(6, 2)),
        NoFeatures((torch.zeros(6, 2), torch.zeros(6, 2))),
        NoFeatures({"image_features": torch.zeros(6, 2), "text_features": torch.zeros(6, 2)}),
        NoFeatures((torch.zeros(6, 2), torch.zeros(6, 3), torch.ones(()))),
    ],
)
def test_a_model_of_neither_interface_is_refused_by_name(model):
    with pytest.raises(TypeError, match=f"{type(model).__name__} has the interface neither of transformers"):
        CLIP([cheap(6)], 6).prepare(model)
