"""An attribution of random scores for real digits."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from trak.attribution.results import ArrayAttribution

_images, _labels = (torch.tensor(a) for a in load_digits(return_X_y=True))
_images = (_images.float() / 16).reshape(-1, 1, 8, 8)
train_dataset, test_dataset = TensorDataset(_images[:60], _labels[:60]), TensorDataset(_images[60:70], _labels[60:70])
predicted = _labels[60:70].tolist()
attribution = ArrayAttribution(torch.randn(60, 10, generator=torch.Generator().manual_seed(0)).numpy(), "random")
