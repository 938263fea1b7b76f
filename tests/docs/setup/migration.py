"""A small model of images with two checkpoints and loaders, and a small CLIP of random weights with pairs."""

import torch
import transformers
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
_images, _labels = torch.randn(220, 1, 6, 6), torch.arange(220) % 3
train_loader = DataLoader(TensorDataset(_images[:200], _labels[:200]), 50)
test_loader = DataLoader(TensorDataset(_images[200:], _labels[200:]), 20)


def _model():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


model, checkpoints = _model(), [_model().state_dict() for _ in range(2)]

_text = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
_image = {
    "image_size": 8, "patch_size": 4, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2,
}  # fmt: skip
clip_model = transformers.CLIPModel(transformers.CLIPConfig(text_config=_text, vision_config=_image, projection_dim=4))
pair_loader = DataLoader(TensorDataset(torch.randn(400, 3, 8, 8), torch.randint(3, 49, (400, 6))), 100)
