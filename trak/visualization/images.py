"""Images as data sets have them, as pixels and as bytes that a browser shows."""

import base64
import io
from typing import Any

import numpy as np

from trak._utils.optional import import_optional_dependency

Array = np.ndarray[Any, Any]

_CHANNELS = (1, 3, 4)
_SMALL_PNG = 600
DRAWING_SIZE = 480
"""Pixels that a drawing is legible at."""


def is_picture(image: Any) -> bool:
    """Whether it is an image of Pillow's."""
    return hasattr(image, "convert") and hasattr(image, "getbands")


def is_drawing(image: Any) -> bool:
    """Whether it is a figure of matplotlib's."""
    return hasattr(image, "savefig") and hasattr(image, "get_axes")


def drawn(figure: Any) -> Array:
    """The pixels of a figure of matplotlib's, which is closed: uint8 (H, W, 3), or (H, W, 4) if it is transparent."""
    plt = import_optional_dependency("matplotlib.pyplot", "drawings need matplotlib", "pictures")
    agg = import_optional_dependency("matplotlib.backends.backend_agg", "drawings need matplotlib", "pictures")
    try:
        canvas = agg.FigureCanvasAgg(figure)
        canvas.draw()
        found = np.array(canvas.buffer_rgba())
    finally:
        plt.close(figure)
    return found[..., :3] if (found[..., 3] == 255).all() else found


def pixels(image: Any) -> Array:
    """An image as uint8: (H, W) if it is grey, otherwise (H, W, 3), or (H, W, 4) with opacity.

    Numbers from 0 to 1 stand for dark to light, and so do bytes; any others are stretched from the image's least to its
    greatest.

    Args:
        image: of Pillow's, a figure of matplotlib's, which is closed, or an array or tensor (H, W), (C, H, W) or
            (H, W, C) with 1, 3 or 4 channels. A shape that may be either is (C, H, W), unless it is a square as
            (H, W, C) alone.

    Raises:
        ValueError: for another shape, or numbers that are not finite.
    """
    if is_drawing(image):
        return drawn(image)
    if is_picture(image):
        grey, clear = (
            image.mode in ("1", "L", "I", "I;16", "F"),
            "A" in image.getbands() or "transparency" in image.info,
        )
        if not grey:
            return np.asarray(image.convert("RGBA" if clear else "RGB"))
        image = image.convert("L") if image.mode == "1" else image
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.ndim == 3 and array.shape[0] in _CHANNELS and not _is_square_with_channels_last(*array.shape):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in _CHANNELS) or not array.size:
        raise ValueError(
            f"an image must have shape (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 channels, got {np.shape(image)}; "
            "make one of it with display=function"
        )
    if array.dtype == np.uint8:
        return array
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(
            f"an image must have finite numbers, got {array[~np.isfinite(array)][0]}; clip or replace such pixels by "
            "display=function"
        )
    low, high = array.min(), array.max()
    if low < 0 or high > 1:
        array = (array - low) / ((high - low) or 1)
    return np.rint(array * 255).astype(np.uint8)


def _is_square_with_channels_last(first: int, second: int, third: int) -> bool:
    return first == second != third and third in _CHANNELS


def fitted(array: Array, size: int) -> tuple[int, int]:
    """Width and height of what `encode` makes of pixels."""
    height, width = array.shape[:2]
    scale = min(1.0, size / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode(array: Array, size: int) -> str:
    """An image's pixels as a data URL: the smaller of PNG and WebP, no side longer than `size`.

    Raises:
        ImportError: if Pillow is not installed.
    """
    need = (
        f"an example of shape {array.shape} was taken for an image, which display=function changes; images need Pillow"
    )
    image = import_optional_dependency("PIL.Image", need, "pictures").fromarray(array)
    image.thumbnail((size, size))
    kind, data = "png", _written(image, "PNG")
    if len(data) > _SMALL_PNG:
        lossy = _written(image, "WEBP", quality=80)
        if len(lossy) < len(data):
            kind, data = "webp", lossy
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _written(image: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
