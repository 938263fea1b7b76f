"""Residual networks for small images, as examples train them and benchmarks time them. Needs torch alone."""

import torch
from torch import Tensor, nn


def convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution, BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, height, width), as x."""
        return x + self.layers(x)


def resnet9(classes: int = 10, width: int = 64) -> nn.Module:
    """The ResNet-9 of CIFAR speed records: 2.3 million parameters at width 64, for 32 × 32 images."""
    w = width
    return nn.Sequential(
        convolution(3, w), convolution(w, 2 * w, kernel=5, stride=2),
        Residual(convolution(2 * w, 2 * w), convolution(2 * w, 2 * w)),
        convolution(2 * w, 4 * w), nn.MaxPool2d(2), Residual(convolution(4 * w, 4 * w), convolution(4 * w, 4 * w)),
        convolution(4 * w, 2 * w), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2 * w, classes, bias=False),
    )  # fmt: skip


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs, height / stride, width / stride)."""
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet18(classes: int = 10, width: int = 64) -> nn.Module:
    """ResNet-18 for 32 × 32 images: 11 million parameters at width 64."""
    widths = [width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width]
    strides = [1, 1, 2, 1, 2, 1, 2, 1]
    inputs = [width, *widths[:-1]]
    blocks = [BasicBlock(*sizes) for sizes in zip(inputs, widths, strides, strict=True)]
    return nn.Sequential(
        convolution(3, width), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)
    )
