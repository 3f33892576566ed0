"""From an image to the model's input."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from bigain.data.item import Pixels
from bigain.data.reading import to_rgb


def preprocess(image: Pixels | Image.Image, size: int) -> torch.Tensor:
    """RGB, short side to ``size`` (bicubic with antialiasing), centre crop, to [-1, 1].

    The longer side is rounded down and the crop's offset to the nearest pixel, as in torchvision's
    ``Resize`` and ``CenterCrop``, which the diffusion classifier (Li et al., ICCV 2023) uses.

    Args:
        image: uint8 (H, W, 3), or a PIL image of any mode (then also turned upright by its EXIF orientation).
        size: height and width of the result in pixels.

    Returns:
        float32 (3, size, size) in [-1, 1].

    Raises:
        TypeError: an array that is not uint8.
        ValueError: an array that is not (H, W, 3), a size under 1, or an image so long and thin that
            resizing it would take more pixels than Pillow takes for safe.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    picture = Image.fromarray(_checked(to_rgb(image) if isinstance(image, Image.Image) else image))
    width, height = picture.size
    short = min(width, height)
    width, height = size * width // short, size * height // short  # the short side is exactly `size`
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"an image of {picture.width} x {picture.height} pixels with its short side at {size} would have "
            f"{width} x {height}, over PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}"
        )
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.float32)  # (size, size, 3)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def _checked(image: Pixels) -> Pixels:
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8, not {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be (H, W, 3) with at least one pixel, not {image.shape}")
    return np.ascontiguousarray(image)
