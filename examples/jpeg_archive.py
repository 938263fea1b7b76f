"""CIFAR-10 as JPEG copies in one file, cifar10_jpeg.npz. Needs Pillow."""

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def read_archive(folder: Path, split: str, classes: Collection[int], limit: int | None = None) -> tuple[Array, Array]:
    """Images (N, 3, 32, 32), uint8, and labels (N,) of some classes.

    The archive has the arrays {train,test}_jpeg (all files, one after the other), _offsets and _labels.

    Raises:
        FileNotFoundError: if the folder has no such file.
    """
    from PIL import Image

    with np.load(folder / "cifar10_jpeg.npz") as stored:
        jpeg, offsets, labels = (stored[f"{split}_{name}"] for name in ("jpeg", "offsets", "labels"))
    rows = np.flatnonzero(np.isin(labels, list(classes)))[:limit]
    images = [np.asarray(Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes()))) for i in rows]
    return np.stack(images).transpose(0, 3, 1, 2), labels[rows].astype(np.int64)
