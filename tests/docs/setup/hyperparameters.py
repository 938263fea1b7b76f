"""A small store named "results"."""

import torch
from torch import nn

import trak

torch.manual_seed(0)
batches = [(torch.randn(30, 6), torch.arange(30) % 3) for _ in range(3)]
small = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
trak.attribute(
    small, "image_classification", small.state_dict(), batches, batches[:1], "results", proj_dim=32, progress=False
)
