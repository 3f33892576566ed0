"""From image files, PIL images and arrays to a model's input, and back."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]

# Named one by one: Pillow would otherwise also try formats that start an external program (EPS).
FORMATS: tuple[str, ...] = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

SUFFIXES: tuple[str, ...] = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

# What Pillow's decoders raise on bytes that are no image, or only the beginning of one; and looking up a name that is
# too long, or in a folder that may not be entered.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class BadImageError(ValueError):
    """A file, or a cell of a table, that should hold an image and does not."""


def kind_of(path: Path) -> str:
    """What a path leads to, in words: "a file", "a folder", "a pipe", ..., or "missing"."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "no regular file")
    except (FileNotFoundError, NotADirectoryError):
        return "missing"


def read_image(source: Path | bytes, name: str) -> Pixels:
    """Decodes a file, or the bytes of one, to uint8 (H, W, 3), RGB and upright; of an animation, the first frame.

    Raises:
        BadImageError: the source is missing, no regular file (a pipe would never end), no image, cut short, of a
            format not in ``FORMATS``, or larger than Pillow takes for safe; calls it by ``name``.
    """
    try:
        if isinstance(source, Path) and (what := kind_of(source)) != "a file":
            raise BadImageError(f"{name} must be a readable image, not {what}")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            return to_rgb(image)
    except BadImageError:
        raise
    except _DECODING_ERRORS as error:
        raise BadImageError(f"{name} must be a readable image: {error}") from error


def to_rgb(image: Image.Image) -> Pixels:
    """A PIL image of any mode as uint8 (H, W, 3), turned upright as its EXIF orientation says.

    Transparency is dropped, as the field's evaluations do (``convert("RGB")``). Greyscale of 16 bits keeps its
    upper 8; Pillow's own conversion would clip it to white. A ValueError for 32 bits, whose range is unknown.
    """
    upright = ImageOps.exif_transpose(image)
    # Pillow before 11 opens a greyscale PNG of 16 bits in the mode "I".
    if upright.mode.startswith("I;16") or (upright.mode == "I" and image.format == "PNG"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise ValueError(f"greyscale must have 8 or 16 bits, not 32 (mode {upright.mode!r}), whose range is unknown")
    return np.array(upright.convert("RGB"), dtype=np.uint8)


def preprocess(image: Pixels | Image.Image, size: int) -> torch.Tensor:
    """RGB, short side to ``size`` (bicubic with antialiasing), centre crop: float32 (3, size, size) in [-1, 1].

    The longer side is rounded down and the crop's offset to the nearest pixel, as in torchvision's ``Resize`` and
    ``CenterCrop``, which the diffusion classifier (Li et al., ICCV 2023) uses.

    Args:
        image: uint8 (H, W, 3), or a PIL image of any mode (then also turned upright by its EXIF orientation).
        size: height and width of the result in pixels.

    Raises:
        TypeError: an array that is not uint8.
        ValueError: an array that is not (H, W, 3), a size under 1, or an image so long and thin that resizing it would
            take more pixels than Pillow takes for safe.
    """
    import torch  # late: reading a data set must not wait for it

    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    pixels = to_rgb(image) if isinstance(image, Image.Image) else image
    if pixels.dtype != np.uint8:
        raise TypeError(f"image must be uint8, not {pixels.dtype}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"image must be (H, W, 3) with at least one pixel, not {pixels.shape}")
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    width, height = picture.size
    short = min(width, height)
    width, height = size * width // short, size * height // short  # the short side is exactly `size`
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"an image resized to a short side of {size} must have at most {Image.MAX_IMAGE_PIXELS} pixels "
            f"(PIL.Image.MAX_IMAGE_PIXELS), not {width} x {height} (from {picture.width} x {picture.height})"
        )
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    cropped = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.float32)  # (size, size, 3)
    return torch.from_numpy(cropped / 127.5 - 1).permute(2, 0, 1).contiguous()


def image_files(folder: Path) -> list[Path]:
    """The files in ``folder`` whose name ends like an image's (in any case), sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def as_images(images: Any) -> Any:
    """Images of any kind as a sequence of them, none of which is read yet.

    Args:
        images: one image or a sequence of them, each a PIL image, a uint8 array (H, W, 3) or the path of a file; the
            path of a folder, for its images in order; a data set of Hugging Face, for its column "image"; or a tensor.

    Raises:
        ValueError: for no image.
        TypeError: for another type.
    """
    import torch

    if isinstance(images, torch.Tensor):
        return images
    if isinstance(images, (str, Path)) and Path(images).is_dir():
        images = image_files(Path(images))
    if isinstance(images, (str, Path, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim == 3):
        images = [images]
    if "image" in (getattr(images, "column_names", None) or ()):
        images = images["image"]
    if not isinstance(images, (Sequence, np.ndarray)) and not hasattr(images, "__getitem__"):
        raise TypeError(
            "images must be PIL images, uint8 arrays (H, W, 3), paths, a list of these, a folder, a Hugging Face data "
            f"set or a tensor (B, 3, S, S) in [-1, 1], not {type(images).__name__}"
        )
    if len(images) == 0:
        raise ValueError("images must hold at least one image, not 0")
    return images


def as_batch(images: Any, size: int) -> torch.Tensor:
    """Some of what :func:`as_images` gives as a model's input, (B, 3, size, size) float32 in [-1, 1].

    A tensor comes back as it is; all else is preprocessed. Raises as :func:`preprocess`, a :class:`BadImageError` for a
    file that is no image, and a TypeError for another type.
    """
    import torch

    return images if isinstance(images, torch.Tensor) else torch.stack([_one(image, size) for image in images])


def content_id(image: torch.Tensor) -> str:
    """A name for an image (3, H, W) in [-1, 1] that depends on its pixels at 8 bits, whatever its dtype or device.

    Or for a video (T, 3, H, W).
    """
    pixels = to_uint8(image[None])[0]
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:32]


def to_uint8(images: torch.Tensor) -> Pixels:
    """(B, 3, H, W) in about [-1, 1] to uint8 (B, H, W, 3); videos (B, T, 3, H, W) to (B, T, H, W, 3)."""
    import torch

    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.movedim(-3, -1).contiguous().cpu().numpy()


def _one(image: Any, size: int) -> torch.Tensor:
    if isinstance(image, (str, Path)):
        return preprocess(read_image(Path(image), str(image)), size)
    if isinstance(image, (Image.Image, np.ndarray)):
        return preprocess(image, size)
    raise TypeError(f"an image must be a PIL image, a uint8 array (H, W, 3) or a path, not {type(image).__name__}")
