"""Image files to RGB arrays; what cannot be decoded gets an error with its name."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bigain.data.item import Pixels

SUFFIXES: tuple[str, ...] = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Named one by one: Pillow would otherwise also try formats that start an external program (EPS).
FORMATS: tuple[str, ...] = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# What Pillow's decoders raise on bytes that are no image, or only the beginning of one.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class BadImageError(ValueError):
    """A file, or a cell of a table, that should hold an image and does not."""


def read_image(source: Path | bytes, name: str) -> Pixels:
    """Decodes an image to uint8 (H, W, 3), RGB and upright; of an animation, the first frame.

    Args:
        source: a file, or the bytes of one.
        name: stands for the image in errors.

    Raises:
        BadImageError: the source is missing, no image, cut short, of a format not in ``FORMATS``, or larger
            than Pillow takes for safe.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            return to_rgb(image)
    except _DECODING_ERRORS as error:
        raise BadImageError(f"{name} is not a readable image: {error}") from error


def to_rgb(image: Image.Image) -> Pixels:
    """A PIL image of any mode as uint8 (H, W, 3), turned upright as its EXIF orientation says.

    Transparency is dropped, as the field's evaluations do (``convert("RGB")``). Greyscale of 16 bits keeps its
    upper 8; Pillow's own conversion would clip it to white.

    Raises:
        ValueError: 32-bit greyscale, whose range is unknown.
    """
    upright = ImageOps.exif_transpose(image)
    # Pillow before 11 opens a greyscale PNG of 16 bits in the mode "I".
    if upright.mode.startswith("I;16") or (upright.mode == "I" and image.format == "PNG"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise ValueError(f"greyscale of 32 bits (mode {upright.mode!r}) has no known range; convert it to 8 bits")
    return np.array(upright.convert("RGB"), dtype=np.uint8)
