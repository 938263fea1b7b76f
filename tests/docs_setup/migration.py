"""A small CLIP of random weights, pairs, and how many there are."""

import torch
import transformers
from torch.utils.data import DataLoader, TensorDataset

_small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
_text = _small | {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 49}
_image = _small | {"image_size": 8, "patch_size": 4}
model = transformers.CLIPModel(transformers.CLIPConfig(text_config=_text, vision_config=_image, projection_dim=4))
train_dataset = TensorDataset(torch.randn(400, 3, 8, 8), torch.randint(3, 49, (400, 6)))
loader = DataLoader(train_dataset, 100)
