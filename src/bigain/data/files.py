"""Reading what lies under a data set's root (text, csv rows, images), and refusing what lies outside it."""

from __future__ import annotations

import csv
import io
import stat
import struct
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

if TYPE_CHECKING:
    import torch

SUFFIXES: tuple[str, ...] = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Named one by one: Pillow would otherwise also try formats that start an external program (EPS).
FORMATS: tuple[str, ...] = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# What Pillow's decoders raise on bytes that are no image, or only the beginning of one.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class BadImageError(ValueError):
    """A file, or a cell of a table, that should hold an image and does not."""


def inside(root: Path, text: str, source: str) -> Path:
    """``root / text``, where ``text`` was read from a file and may say anything.

    The check is of the text alone: a symbolic link under the root may lead out of it, as links made by the
    user of a data set often do.

    Args:
        root: the folder that must not be left.
        text: a relative path with ``/`` between its parts.
        source: file and line the text comes from, for the error.

    Raises:
        ValueError: the text is empty, absolute (on POSIX or on Windows), or has a part ``..``.
    """
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    if not text.strip() or "\0" in text:
        raise ValueError(f"{source}: the path must name a file, not {text!r}")
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ValueError(f"{source}: the path must be relative to {root} and not lead out of it, not {text!r}")
    return root / posix


def require_folder(path: Path, layout: str) -> Path:
    """``path`` if it is a folder; else ``FileNotFoundError`` with the path and the expected layout."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} must be a folder, not {kind_of(path)}. Expected layout: {layout}")
    return path


def read_text(path: Path, layout: str) -> str:
    """The text of a UTF-8 file, less a byte order mark.

    Raises:
        FileNotFoundError: names the path and the expected layout.
        ValueError: there is no regular file of that name (a pipe would never end), or it is not UTF-8.
    """
    what = kind_of(path)
    if what == "missing":
        raise FileNotFoundError(f"{path} must be a file, not missing. Expected layout: {layout}")
    if what != "a file":
        raise ValueError(f"{path} must be a file, not {what}. Expected layout: {layout}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}") from error


def read_lines(path: Path, layout: str) -> list[tuple[int, str]]:
    """(line number from 1, stripped line) of a UTF-8 file, without blank lines and ``#`` comments."""
    lines = enumerate(read_text(path, layout).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]


def kind_of(path: Path) -> str:
    """What a path leads to, in words: "a file", "a folder", "a pipe", ..., or "missing"."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    return "a file" if stat.S_ISREG(mode) else next((name for test, name in _KINDS if test(mode)), "no regular file")


def folders(root: Path) -> list[Path]:
    """The folders in ``root``, sorted by name, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """The files in ``folder`` whose name ends like an image's (in any case), sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def read_rows(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yields ("file, line n", cells of ``columns`` then of ``optional``), stripped; other columns are ignored.

    A row may not have more or fewer cells than the header: an unquoted comma in a prompt would otherwise shift
    the columns after it. The cell of an ``optional`` column that the file lacks is ``""``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing, a row has too many or too few cells, a cell of ``columns`` is empty,
            there is no row, or the file is not csv.
    """
    layout = f"a csv file with the columns {','.join(columns)}"
    reader = csv.reader(io.StringIO(read_text(path, layout), newline=""), strict=True)
    rows = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, columns, optional, path, layout)
        for cells in filter(None, reader):
            rows += 1
            where = f"{path}, line {reader.line_num}"
            values = _row(cells, header, columns, where)
            yield where, [values.get(column, "") for column in (*columns, *optional)]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: a row must be csv: {error}") from error
    if not rows:
        raise ValueError(f"{path} must have a row below its header, not none. Expected: {layout}")


def _check_header(
    header: list[str], columns: tuple[str, ...], optional: tuple[str, ...], path: Path, layout: str
) -> None:
    for column in columns:
        if column not in header:
            raise ValueError(f"{path} must have a column {column!r}, not only {header}. Expected: {layout}")
    for column in (*columns, *optional):
        if header.count(column) > 1:
            raise ValueError(f"{path} must have one column {column!r}, not {header.count(column)}")


def _row(cells: list[str], header: list[str], columns: tuple[str, ...], where: str) -> dict[str, str]:
    if len(cells) != len(header):
        raise ValueError(
            f"{where}: a row must have {len(header)} cells as the header has, not {len(cells)}; is a comma not quoted?"
        )
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    for column in columns:
        if not values[column]:
            raise ValueError(f"{where}: the column {column!r} must not be empty")
    return values


def read_image(source: Path | bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decodes an image to uint8 (H, W, 3), RGB and upright; of an animation, the first frame.

    Args:
        source: a file, or the bytes of one.
        name: stands for the image in errors.

    Raises:
        BadImageError: the source is missing, no regular file (a pipe would never end), no image, cut short, of a
            format not in ``FORMATS``, or larger than Pillow takes for safe.
    """
    if isinstance(source, Path) and (what := _kind_or_error(source)) != "a file":
        raise BadImageError(f"{name} must be a readable image, not {what}")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            return to_rgb(image)
    except _DECODING_ERRORS as error:
        raise BadImageError(f"{name} must be a readable image: {error}") from error


def _kind_or_error(path: Path) -> str:
    try:
        return kind_of(path)
    except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be entered
        return f"what it leads to: {error}"


def to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
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
        raise ValueError(f"greyscale must have 8 or 16 bits, not 32 (mode {upright.mode!r}), whose range is unknown")
    return np.array(upright.convert("RGB"), dtype=np.uint8)


def preprocess(image: npt.NDArray[np.uint8] | Image.Image, size: int) -> torch.Tensor:
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
    import torch  # late: reading a data set must not wait for it

    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    picture = Image.fromarray(_checked(to_rgb(image) if isinstance(image, Image.Image) else image))
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
    pixels = np.asarray(picture.crop((left, top, left + size, top + size)), dtype=np.float32)  # (size, size, 3)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).contiguous()


def _checked(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8, not {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be (H, W, 3) with at least one pixel, not {image.shape}")
    return np.ascontiguousarray(image)
