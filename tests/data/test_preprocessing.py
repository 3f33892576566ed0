from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigain.data import preprocess
from bigain.images import read_image

SIZES = [(20, 20), (31, 20), (20, 33), (1, 1), (3, 2), (1, 9), (97, 16), (16, 16), (17, 16)]  # (width, height)


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng([width, height, channels]).integers(0, 256, shape, dtype=np.uint8)


def reference(image: Image.Image, size: int) -> np.ndarray:
    """Resize and CenterCrop, step by step in PIL: float64 (3, size, size)."""
    image = image.convert("RGB")
    width, height = image.size
    if width < height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = int(round((width - size) / 2.0)), int(round((height - size) / 2.0))  # noqa: RUF046
    pixels = np.array(image)[top : top + size, left : left + size].astype(np.float64)
    return ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("shape", SIZES)
def test_it_equals_plain_pil(shape: tuple[int, int], size: int) -> None:
    picture = Image.fromarray(noise(*shape))
    result = preprocess(np.asarray(picture), size)
    assert result.dtype == torch.float32
    assert result.shape == (3, size, size)
    assert result.is_contiguous()
    np.testing.assert_allclose(result.numpy(), reference(picture, size), atol=1e-6)


def greyscale() -> Image.Image:
    return Image.fromarray(noise(20, 14, 1))


def palette() -> Image.Image:
    return Image.fromarray(noise(20, 14)).quantize(16)


def transparent() -> Image.Image:
    return Image.frombytes("RGBA", (20, 14), noise(20, 14, 4).tobytes())


def cmyk() -> Image.Image:
    return Image.frombytes("CMYK", (20, 14), noise(20, 14, 4).tobytes())


@pytest.mark.parametrize(
    ("make", "file"),
    [(greyscale, "a.png"), (palette, "a.gif"), (transparent, "a.png"), (cmyk, "a.jpg"), (cmyk, "a.tif")],
)
def test_every_mode_becomes_rgb(make, file: str, tmp_path: Path) -> None:
    make().save(tmp_path / file)
    with Image.open(tmp_path / file) as opened:
        assert opened.mode == make().mode
        expected = reference(opened, 16)
        direct = preprocess(opened, 16)
    result = preprocess(read_image(tmp_path / file, "a"), 16)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
    assert torch.equal(direct, result)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_270),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_90),
    ],
)
def test_a_rotated_photo_is_turned_upright(orientation: int, upright, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(noise(30, 16))
    picture.save(tmp_path / "a.png", exif=exif)
    expected = picture if upright is None else picture.transpose(upright)
    result = read_image(tmp_path / "a.png", "a")
    np.testing.assert_array_equal(result, np.asarray(expected))
    np.testing.assert_allclose(preprocess(result, 16).numpy(), reference(expected, 16), atol=1e-6)
    with Image.open(tmp_path / "a.png") as opened:
        assert torch.equal(preprocess(opened, 16), preprocess(result, 16))


def test_black_and_white_are_the_ends_of_the_range() -> None:
    assert torch.all(preprocess(np.zeros((5, 4, 3), np.uint8), 8) == -1)
    assert torch.all(preprocess(np.full((5, 4, 3), 255, np.uint8), 8) == 1)


def test_an_image_of_the_models_size_keeps_its_pixels() -> None:
    image = noise(16, 16)
    restored = ((preprocess(image, 16) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    np.testing.assert_array_equal(restored.numpy(), image)


@pytest.mark.parametrize(
    ("image", "size", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), 8, TypeError, "uint8, not float32"),
        (np.zeros((4, 4), np.uint8), 8, ValueError, r"\(H, W, 3\).* not \(4, 4\)"),
        (np.zeros((3, 4, 4), np.uint8), 8, ValueError, r"not \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), 8, ValueError, r"at least one pixel, not \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), 0, ValueError, "size must be at least 1 pixel, not 0"),
        (np.zeros((1, 20_000, 3), np.uint8), 512, ValueError, "MAX_IMAGE_PIXELS.*from 20000 x 1"),
    ],
)
def test_bad_input_is_named(image: np.ndarray, size: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        preprocess(image, size)
