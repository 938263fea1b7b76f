"""A small model of digits, two checkpoints and loaders, for the README."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

_images, _labels = (torch.tensor(a) for a in load_digits(return_X_y=True))
_images = (_images.float() / 16).reshape(-1, 1, 8, 8)
train_dataset = TensorDataset(_images[:400], _labels[:400])
test_dataset = TensorDataset(_images[400:410], _labels[400:410])
train_loader, test_loader = DataLoader(train_dataset, 100), DataLoader(test_dataset, 10)


def train(indices, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    images, labels = train_dataset[torch.as_tensor(indices)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model


for _run in range(2):
    model = train(range(len(train_dataset)), _run)
    torch.save(model.state_dict(), f"run{_run}.pt")
