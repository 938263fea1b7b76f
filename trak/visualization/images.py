"""Images of data sets, as pixels and as data URLs."""

import base64
import io
from typing import Any

import numpy as np

from trak._utils.optional import import_optional_dependency
from trak._utils.typing import Array
from trak._utils.validation import as_array

_CHANNELS = (1, 3, 4)
_SMALL_PNG = 600
FIGURE_SIZE = 480
"""Pixels at which a matplotlib figure is legible."""


def is_pillow_image(image: Any) -> bool:
    """Whether a value is a Pillow image."""
    return hasattr(image, "convert") and hasattr(image, "getbands")


def is_figure(image: Any) -> bool:
    """Whether a value is a matplotlib figure."""
    return hasattr(image, "savefig") and hasattr(image, "get_axes")


def pixels(image: Any) -> Array:
    """An image as uint8: (H, W) if it is grey, otherwise (H, W, 3), or (H, W, 4) with opacity.

    Takes a Pillow image, a matplotlib figure, which is closed, or an array or tensor (H, W), (C, H, W) or (H, W, C)
    with 1, 3 or 4 channels. A shape that may be either is (C, H, W), unless it is a square as (H, W, C) alone. Numbers
    from 0 to 1, and bytes, are kept; any others are rescaled from the image's minimum and maximum.
    """
    if is_figure(image):
        plt = import_optional_dependency("matplotlib.pyplot", "drawings need matplotlib", "pictures")
        agg = import_optional_dependency("matplotlib.backends.backend_agg", "drawings need matplotlib", "pictures")
        try:
            canvas = agg.FigureCanvasAgg(image)
            canvas.draw()
            found = np.array(canvas.buffer_rgba())
        finally:
            plt.close(image)
        return found[..., :3] if (found[..., 3] == 255).all() else found
    if is_pillow_image(image):
        if image.mode not in ("1", "L", "I", "I;16", "F"):
            has_opacity = "A" in image.getbands() or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if has_opacity else "RGB"))
        image = image.convert("L") if image.mode == "1" else image
    array = as_array(image)
    if array.ndim == 3 and array.shape[0] in _CHANNELS:
        first, second, third = array.shape
        is_square_with_channels_last = first == second != third and third in _CHANNELS
        array = array if is_square_with_channels_last else np.moveaxis(array, 0, -1)
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


def scaled_size(array: Array, size: int) -> tuple[int, int]:
    """Width and height of an image that `encode_image` has resized."""
    height, width = array.shape[:2]
    scale = min(1.0, size / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def encode_image(array: Array, size: int) -> str:
    """An image's pixels as a data URL: the smaller of PNG and WebP, no side longer than `size`."""
    need = (
        f"an example of shape {array.shape} was taken for an image, which display=function changes; images need Pillow"
    )
    image = import_optional_dependency("PIL.Image", need, "pictures").fromarray(array)
    image.thumbnail((size, size))
    kind, data = "png", _image_bytes(image, "PNG")
    if len(data) > _SMALL_PNG and len(lossy := _image_bytes(image, "WEBP", quality=80)) < len(data):
        kind, data = "webp", lossy
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _image_bytes(image: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
