"""Glyphs: the embedded data set, drawn by the package itself.

An image shows one letter: a TrueType face that comes with matplotlib, rotated, scaled, shifted and coloured, on a
textured background. Edges and strokes carry the class, colours and textures do not. Every image is a pure function of
``(seed, split, index, size)``, so a split can be drawn in any order, in part, or by several workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bigain.data.dataset import ImageCollection, Item
from bigain.data.prompts import LETTER
from bigain.images import Pixels

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

SUPERSAMPLE = 4
MAX_ROTATION_DEGREES = 20.0
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue, by Rec. 601
Typeface = ImageFont.FreeTypeFont
_MIN_CONTRAST = 0.35  # of luma between letter and background, in [0, 1]


@dataclass(frozen=True)
class Drawn:
    """One split of a drawn data set."""

    split: str = "test"  # one of SPLITS, which share no image
    size: int = 32  # height and width in pixels
    seed: int = 0  # of the whole data set
    smallest: ClassVar[int] = 16

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {sorted(SPLITS)}, not {self.split!r}")
        if self.size < self.smallest:
            raise ValueError(f"size must be at least {self.smallest} pixels to be legible, not {self.size}")

    def __len__(self) -> int:
        return SPLITS[self.split]

    def stream(self, index: int, *use: int) -> np.random.Generator:
        """The random stream of one image; an IndexError outside of [0, len).

        ``use`` is at least 1 (NumPy takes a missing part for 0).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}), not {index}")
        return np.random.default_rng([self.seed, sorted(SPLITS).index(self.split), index, *use])


class Glyphs(Drawn):
    """One split of the glyphs; index ``i`` has the class ``i % 10``, so any prefix of a split is balanced."""

    def pixels(self, index: int) -> Pixels:
        """Draws one image: uint8 (size, size, 3)."""
        return draw(CLASSES[index % len(CLASSES)], self.size, self.stream(index))


def draw(letter: str, size: int, rng: np.random.Generator) -> Pixels:
    """Draws ``letter`` on a textured background; returns uint8 (size, size, 3)."""
    first = rng.uniform(0.0, 1.0, size=3)
    background = textured(first, near(first, rng), size, rng)  # (size, size, 3) in [0, 1]
    colour = _contrasting_colour(background.mean(axis=(0, 1)), rng)
    coverage = _coverage(letter, size, rng)[..., None]  # (size, size, 1) in [0, 1]
    shade = 1.0 + 0.15 * (texture(size, rng)[..., None] - 0.5)
    return quantised(background * (1 - coverage) + colour * shade * coverage)


def quantised(pixels: np.ndarray) -> Pixels:
    """Pixels in [0, 1] as uint8; what is beyond is clipped."""
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)


@lru_cache(maxsize=256)
def typeface(name: str, height: int) -> Typeface:
    """One of ``FONTS``, ``height`` pixels to the em."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), height)


def _coverage(letter: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel the letter covers: float (size, size) in [0, 1]."""
    canvas = size * SUPERSAMPLE
    height = round(canvas * rng.uniform(0.75, 1.1))
    font = typeface(FONTS[rng.integers(len(FONTS))], height)
    shift = rng.uniform(-0.06, 0.06, size=2) * canvas
    angle = rng.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES)
    return rasterised(letter, font, (canvas / 2 + shift[0], canvas / 2 + shift[1]), angle, size)


def rasterised(letter: str, font: Typeface, centre: tuple[float, float], angle: float, size: int) -> np.ndarray:
    """The letter, its box centred on ``centre`` (x, y) and turned about it: float (size, size) in [0, 1].

    The font's height and the centre are in pixels of a canvas of ``SUPERSAMPLE`` times the size, the angle is in
    degrees, anticlockwise.
    """
    canvas = size * SUPERSAMPLE
    image = Image.new("L", (canvas, canvas), 0)
    left, top, right, bottom = font.getbbox(letter)
    origin = (centre[0] - (left + right) / 2, centre[1] - (top + bottom) / 2)
    ImageDraw.Draw(image).text(origin, letter, fill=255, font=font)
    image = image.rotate(angle, resample=Image.Resampling.BILINEAR, center=centre)
    image = image.resize((size, size), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64) / 255


def near(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another colour, close to this one in each channel."""
    return np.clip(colour + rng.uniform(-0.25, 0.25, size=3), 0, 1)


def textured(first: np.ndarray, second: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Two colours, mixed by a texture: float (size, size, 3) in [0, 1]."""
    mix = texture(size, rng)[..., None]
    return first * (1 - mix) + second * mix


def texture(size: int, rng: np.random.Generator) -> np.ndarray:
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
    luma = float(background @ LUMA)
    room_below, room_above = max(0.0, luma - _MIN_CONTRAST), max(0.0, 1 - luma - _MIN_CONTRAST)
    drawn = rng.uniform(0, room_below + room_above)
    target = drawn if drawn < room_below else luma + _MIN_CONTRAST + drawn - room_below
    return with_luma(rng.uniform(0, 1, size=3), target)


def with_luma(colour: np.ndarray, luma: float) -> np.ndarray:
    """The colour, moved towards black or white until it has this luma; both in [0, 1], the colour not pure white."""
    own = float(colour @ LUMA)
    return colour * (luma / own) if own > luma else 1 - (1 - colour) * ((1 - luma) / (1 - own))


def glyphs(split: str, size: int) -> ImageCollection:
    """All images of a split, ids like ``glyphs-test-000123``, drawn at ``size`` x ``size`` pixels on demand."""
    data = Glyphs(split, size)
    entries = tuple(
        Item(f"glyphs-{split}-{index:06d}", partial(data.pixels, index), (index % len(CLASSES),))
        for index in range(len(data))
    )
    return ImageCollection("glyphs", CLASSES, entries, template=LETTER)
