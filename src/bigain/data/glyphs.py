"""Glyphs: the embedded data set, drawn by the package itself.

An image shows one letter: a TrueType face that comes with matplotlib, rotated, scaled, shifted and
coloured, on a textured background. Edges and strokes carry the class, colours and textures do not.
Every image is a pure function of ``(seed, split, index, size)``, so a split can be drawn in any order, in
part, or by several workers, and gives the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CLASSES: tuple[str, ...] = tuple("ABEGHKMRSX")
FONTS: tuple[str, ...] = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "cmss10.ttf",
    "cmtt10.ttf",
    "cmb10.ttf",
)
SPLITS: dict[str, int] = {"train": 100_000, "validation": 2_000, "test": 5_000}

_SUPERSAMPLE = 4
_MAX_ROTATION_DEGREES = 20.0
_MIN_CONTRAST = 0.35  # of Rec. 601 luma between letter and background, in [0, 1]
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Glyphs:
    """One split of the glyph data set.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``; they share no image.
        size: height and width in pixels.
        seed: of the whole data set.
        length: number of images, at most ``SPLITS[split]`` (the default).

    Index ``i`` has the class ``i % 10``, so any prefix of a split is balanced.
    """

    split: str = "test"
    size: int = 32
    seed: int = 0
    length: int | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {sorted(SPLITS)}, not {self.split!r}")
        if self.size < 16:
            raise ValueError(f"size must be at least 16 pixels for a letter to be legible, not {self.size}")
        if self.length is not None and not 1 <= self.length <= SPLITS[self.split]:
            raise ValueError(
                f"length must lie in [1, {SPLITS[self.split]}] for the split {self.split!r}, not {self.length}"
            )

    def __len__(self) -> int:
        return SPLITS[self.split] if self.length is None else self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Image as uint8 (size, size, 3) and its class index."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}), not {index}")
        rng = np.random.default_rng([self.seed, sorted(SPLITS).index(self.split), index])
        label = index % len(CLASSES)
        return draw(CLASSES[label], self.size, rng), label

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return (self[index] for index in range(len(self)))


def draw(letter: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws ``letter`` on a textured background; returns uint8 (size, size, 3)."""
    background = _background(size, rng)  # (size, size, 3) in [0, 1]
    colour = _contrasting_colour(background.mean(axis=(0, 1)), rng)
    coverage = _coverage(letter, size, rng)[..., None]  # (size, size, 1) in [0, 1]
    shade = 1.0 + 0.15 * (_texture(size, rng)[..., None] - 0.5)
    pixels = background * (1 - coverage) + colour * shade * coverage
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)


@lru_cache(maxsize=256)
def _font(name: str, height: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), height)


def _coverage(letter: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel the letter covers: float (size, size) in [0, 1]."""
    canvas = size * _SUPERSAMPLE
    height = round(canvas * rng.uniform(0.75, 1.1))
    font = _font(FONTS[rng.integers(len(FONTS))], height)
    image = Image.new("L", (canvas, canvas), 0)
    shift = rng.uniform(-0.06, 0.06, size=2) * canvas
    centre = (canvas / 2 + shift[0], canvas / 2 + shift[1])
    left, top, right, bottom = font.getbbox(letter)
    origin = (centre[0] - (left + right) / 2, centre[1] - (top + bottom) / 2)
    ImageDraw.Draw(image).text(origin, letter, fill=255, font=font)
    angle = rng.uniform(-_MAX_ROTATION_DEGREES, _MAX_ROTATION_DEGREES)
    image = image.rotate(angle, resample=Image.Resampling.BILINEAR, center=centre)
    image = image.resize((size, size), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64) / 255


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Two colours of close lightness, mixed by a texture: float (size, size, 3) in [0, 1]."""
    first = rng.uniform(0.0, 1.0, size=3)
    second = np.clip(first + rng.uniform(-0.25, 0.25, size=3), 0, 1)
    mix = _texture(size, rng)[..., None]
    return first * (1 - mix) + second * mix


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """A stripe, checker, gradient, blob or grain pattern: float (size, size) in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size] / size
    kind = rng.integers(5)
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    frequency = rng.uniform(2.0, 6.0)
    phase = rng.uniform(0, 2 * np.pi, size=2)
    if kind == 0:  # stripes
        return 0.5 + 0.5 * np.sin(2 * np.pi * frequency * along + phase[0])
    if kind == 1:  # checkers
        waves = np.sin(2 * np.pi * frequency * along + phase[0]) * np.sin(2 * np.pi * frequency * across + phase[1])
        return 0.5 + 0.5 * np.tanh(3 * waves)
    if kind == 2:  # gradient
        return (along - along.min()) / (along.max() - along.min())
    coarse = rng.uniform(0, 1, size=(5, 5) if kind == 3 else (size // 2, size // 2))  # blobs or grain
    image = Image.fromarray((coarse * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float64) / 255


def _contrasting_colour(background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour whose luma is at least ``_MIN_CONTRAST`` away from the background's."""
    luma = float(background @ _LUMA)
    room_below, room_above = max(0.0, luma - _MIN_CONTRAST), max(0.0, 1 - luma - _MIN_CONTRAST)
    draw_ = rng.uniform(0, room_below + room_above)
    target = draw_ if draw_ < room_below else luma + _MIN_CONTRAST + draw_ - room_below
    colour = rng.uniform(0, 1, size=3)
    own = float(colour @ _LUMA)
    # Towards black or white until the luma is met: linear in the colour, and never out of [0, 1].
    return colour * (target / own) if own > target else 1 - (1 - colour) * ((1 - target) / (1 - own))
