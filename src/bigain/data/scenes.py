"""Scenes, the embedded multi-label data: several coloured letters, each in its own quadrant, and sentences about them.

Like a glyph, a scene is a pure function of ``(seed, split, index, size)``. What it shows (letters, colours, places)
and how that is drawn come from two random streams, so the first is known without the second, and is the same at any
size. Colours are chosen so that a background exists whose luma keeps its distance from all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import ClassVar

import numpy as np

from bigain.data import glyphs
from bigain.data.dataset import ImageCollection, Item
from bigain.data.glyphs import CLASSES, FONTS, LUMA, MAX_ROTATION_DEGREES, SUPERSAMPLE, Drawn
from bigain.data.prompts import ONE_LETTER
from bigain.images import Pixels

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.05, 0.06),
    "orange": (1.0, 0.55, 0.05),
    "yellow": (1.0, 0.95, 0.15),
    "green": (0.02, 0.47, 0.1),
    "blue": (0.1, 0.2, 0.85),
    "purple": (0.5, 0.1, 0.65),
    "white": (0.95, 0.95, 0.95),
    "black": (0.04, 0.04, 0.04),
}
"""RGB in [0, 1]."""
PLACES: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")  # in reading order
COUNTS: tuple[int, ...] = (2, 3, 4)  # of letters in a scene
MIN_CONTRAST = 0.25  # of luma between any pixel of a letter and any pixel of the background

_LAYOUT, _PIXELS = 1, 2  # the two random streams of a scene
_JITTER = 0.05  # of a letter's colour, in each channel
_SHADE = 0.08  # peak to peak, of the texture of a letter, relative to its colour
_ROOM = 0.02  # the narrowest interval of luma that will do for a background
_EXTENT = (0.65, 0.9)  # of the box around a rotated letter, in quadrants
_SHIFT = 0.7  # of the way from the middle to the edge of the quadrant, at most


@dataclass(frozen=True)
class Placed:
    """A letter of ``CLASSES``, the name of its colour in ``COLOURS``, and its place, one of ``PLACES``."""

    letter: str
    colour: str
    place: str

    def __post_init__(self) -> None:
        for field, allowed in (("letter", CLASSES), ("colour", tuple(COLOURS)), ("place", PLACES)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")


@dataclass(frozen=True)
class Scenes(Drawn):
    """One split of the scenes: 2 to 4 different letters each.

    Scene ``i`` shows the letter ``CLASSES[i % 10]`` among others, so any ten in a row show all.
    """

    size: int = 64
    smallest: ClassVar[int] = 32

    def pixels(self, index: int) -> Pixels:
        """Draws one scene: uint8 (size, size, 3)."""
        return draw(self.letters(index), self.size, self.stream(index, _PIXELS))

    def letters(self, index: int) -> tuple[Placed, ...]:
        """What a scene shows, in reading order, without drawing it. Does not depend on the size."""
        rng = self.stream(index, _LAYOUT)
        count = COUNTS[rng.integers(len(COUNTS))]
        others = rng.permutation(len(CLASSES) - 1)[: count - 1].tolist()
        labels = [index % len(CLASSES), *((index + 1 + other) % len(CLASSES) for other in others)]
        places = rng.permutation(len(PLACES))[:count].tolist()  # in no order: the letter of the index goes anywhere
        together = colourings(count)
        colours = together[rng.integers(len(together))]
        return tuple(
            Placed(CLASSES[label], colour, PLACES[place])
            for place, label, colour in sorted(zip(places, labels, colours, strict=True))
        )


@lru_cache
def colourings(count: int) -> tuple[tuple[str, ...], ...]:
    """All ways to colour ``count`` letters, also alike, for which there is a background."""
    return tuple(colours for colours in product(COLOURS, repeat=count) if clear_lumas(frozenset(colours)))


@lru_cache
def clear_lumas(colours: frozenset[str]) -> tuple[tuple[float, float], ...]:
    """The intervals of luma in [0, 1] at least ``MIN_CONTRAST`` away from letters in these colours, dark to light.

    Intervals too narrow for a background are left out.
    """
    intervals, low = [], 0.0
    for own in sorted(map(luma, colours)):
        intervals.append((low, own * (1 - _SHADE / 2) - MIN_CONTRAST))
        low = own * (1 + _SHADE / 2) + MIN_CONTRAST
    intervals.append((low, 1.0))
    return tuple((low, high) for low, high in intervals if high - low >= _ROOM)


def draw(letters: Sequence[Placed], size: int, rng: np.random.Generator) -> Pixels:
    """Draws letters on a textured background; returns uint8 (size, size, 3)."""
    pixels = backdrop(frozenset(placed.colour for placed in letters), size, rng)
    half = size // 2
    for placed in letters:
        row, column = divmod(PLACES.index(placed.place), 2)
        top, left = row * (size - half), column * (size - half)
        quadrant = pixels[top : top + half, left : left + half]  # a view
        covered = coverage(placed.letter, half, rng)[..., None]  # (half, half, 1) in [0, 1]
        shade = 1.0 + _SHADE * (glyphs.texture(half, rng)[..., None] - 0.5)
        quadrant[...] = quadrant * (1 - covered) + tint(placed.colour, rng) * shade * covered
    return glyphs.quantised(pixels)


def backdrop(colours: frozenset[str], size: int, rng: np.random.Generator) -> np.ndarray:
    """A background for letters in these colours: float (size, size, 3) in [0, 1].

    Its two colours have a luma in the same clear interval, hence so has every mixture of them.
    """
    clear = clear_lumas(colours)
    if not clear:
        raise ValueError(f"colours must leave room for a background, not {', '.join(sorted(colours))} together")
    widths = np.array([high - low for low, high in clear])
    low, high = clear[rng.choice(len(clear), p=widths / widths.sum())]
    first = glyphs.with_luma(rng.uniform(0, 1, size=3), rng.uniform(low, high))
    second = glyphs.with_luma(glyphs.near(first, rng), rng.uniform(low, high))
    return glyphs.textured(first, second, size, rng)


def luma(colour: str) -> float:
    """Of a named colour, in [0, 1]."""
    return float(np.array(COLOURS[colour]) @ LUMA)


def tint(colour: str, rng: np.random.Generator) -> np.ndarray:
    """RGB near a named colour, of exactly its luma."""
    return glyphs.with_luma(np.clip(COLOURS[colour] + rng.uniform(-_JITTER, _JITTER, size=3), 0, 1), luma(colour))


def coverage(letter: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel of a quadrant the letter covers: float (size, size) in [0, 1]; no part is cut off."""
    canvas = size * SUPERSAMPLE
    font, angle, box = cut(letter, canvas, _EXTENT, rng)
    shift = rng.uniform(-_SHIFT, _SHIFT, size=2) * (canvas - box) / 2
    centre = canvas / 2 + shift
    return glyphs.rasterised(letter, font, (centre[0], centre[1]), angle, size)


def cut(
    letter: str, canvas: int, extent: tuple[float, float], rng: np.random.Generator
) -> tuple[glyphs.Typeface, float, np.ndarray]:
    """A typeface, an angle in degrees, and the width and height of the box around the letter in it, all in pixels.

    The longer side of the box is a share of the canvas, drawn from ``extent``.
    """
    name = FONTS[rng.integers(len(FONTS))]
    angle = rng.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES)
    left, top, right, bottom = glyphs.typeface(name, canvas).getbbox(letter)
    cosine, sine = math.cos(math.radians(angle)), abs(math.sin(math.radians(angle)))
    width, height = right - left, bottom - top
    box = np.array([width * cosine + height * sine, width * sine + height * cosine])
    scale = rng.uniform(*extent) * canvas / box.max()
    return glyphs.typeface(name, int(canvas * scale)), angle, box * scale


def describe(letters: Sequence[Placed]) -> str:
    """All that is to be said: "a photo of a red letter A at the top left and an orange letter B at the top right"."""
    return sentence([phrase(placed) for placed in letters])


def phrase(placed: Placed, coloured: bool = True, located: bool = True) -> str:
    """A letter with its article: "an orange letter B at the bottom right", or less of it."""
    noun = f"{placed.colour} letter {placed.letter}" if coloured else f"letter {placed.letter}"
    article = "an" if noun[0] in "aeiou" else "a"
    return f"{article} {noun} at the {placed.place}" if located else f"{article} {noun}"


def sentence(phrases: Sequence[str]) -> str:
    """What a photo shows, part by part, of at least one."""
    if not phrases:
        raise ValueError("letters must hold at least one letter, not none")
    return f"a photo of {' and '.join(phrases)}"


def scenes(split: str, size: int) -> ImageCollection:
    """All scenes of a split, ids like ``glyphs-scenes-test-000123``, drawn at ``size`` x ``size`` pixels on demand.

    Multi-label: the letters in reading order of their places; the caption names each with its colour and place. The
    prompt of a class is ``prompts.ONE_LETTER``, the caption of a scene that tells of one of its letters alone.
    """
    data = Scenes(split, size)
    entries = []
    for index in range(len(data)):
        letters = data.letters(index)
        labels = tuple(CLASSES.index(placed.letter) for placed in letters)
        identity = f"glyphs-scenes-{split}-{index:06d}"
        entries.append(Item(identity, partial(data.pixels, index), labels, describe(letters)))
    return ImageCollection("glyphs-scenes", CLASSES, tuple(entries), template=ONE_LETTER, multi_label=True)
