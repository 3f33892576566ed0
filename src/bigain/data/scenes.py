"""Scenes: several coloured letters in one image, each in its own quadrant; the embedded multi-label data.

Like a glyph, a scene is a pure function of ``(seed, split, index, size)``. What it shows (letters, colours, places)
and how that is drawn come from two random streams, so the first is known without the second, and is the same at any
size. Colours are chosen so that a background exists whose luma keeps its distance from all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from bigain.data.glyphs import (
    CLASSES,
    FONTS,
    LUMA,
    MAX_ROTATION_DEGREES,
    SPLITS,
    SUPERSAMPLE,
    check_split,
    near,
    quantised,
    rasterised,
    stream,
    texture,
    textured,
    typeface,
    with_luma,
)
from bigain.data.item import Pixels

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


@dataclass(frozen=True, eq=False)
class Scene:
    """An image, uint8 (size, size, 3), and what it shows, in reading order."""

    image: Pixels
    letters: tuple[Placed, ...]


@dataclass(frozen=True)
class Scenes:
    """One split of the scenes: 2 to 4 different letters each.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``; they share no image.
        size: height and width in pixels.
        seed: of the whole data set.
        length: number of scenes, at most ``SPLITS[split]`` (the default).

    Scene ``i`` shows the letter ``CLASSES[i % 10]`` among others, so any ten in a row show all.
    """

    split: str = "test"
    size: int = 64
    seed: int = 0
    length: int | None = None

    def __post_init__(self) -> None:
        check_split(self.split, self.length)
        if self.size < 32:
            raise ValueError(f"size must be at least 32 pixels for four letters to be legible, not {self.size}")

    def __len__(self) -> int:
        return SPLITS[self.split] if self.length is None else self.length

    def __getitem__(self, index: int) -> Scene:
        """Draws one scene."""
        letters = self.letters(index)
        return Scene(draw(letters, self.size, stream(self.seed, self.split, index, _PIXELS)), letters)

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(len(self)))

    def letters(self, index: int) -> tuple[Placed, ...]:
        """What a scene shows, in reading order, without drawing it. Does not depend on the size."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must lie in [0, {len(self)}), not {index}")
        rng = stream(self.seed, self.split, index, _LAYOUT)
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
    found, low = [], 0.0
    for own in sorted(map(luma, colours)):
        found.append((low, own * (1 - _SHADE / 2) - MIN_CONTRAST))
        low = own * (1 + _SHADE / 2) + MIN_CONTRAST
    found.append((low, 1.0))
    return tuple((low, high) for low, high in found if high - low >= _ROOM)


def draw(letters: Sequence[Placed], size: int, rng: np.random.Generator) -> Pixels:
    """Draws letters on a textured background; returns uint8 (size, size, 3).

    Raises:
        ValueError: no background keeps its distance from all colours.
    """
    pixels = backdrop(frozenset(placed.colour for placed in letters), size, rng)
    half = size // 2
    for placed in letters:
        row, column = divmod(PLACES.index(placed.place), 2)
        top, left = row * (size - half), column * (size - half)
        quadrant = pixels[top : top + half, left : left + half]  # a view
        covered = coverage(placed.letter, half, rng)[..., None]  # (half, half, 1) in [0, 1]
        shade = 1.0 + _SHADE * (texture(half, rng)[..., None] - 0.5)
        quadrant[...] = quadrant * (1 - covered) + tint(placed.colour, rng) * shade * covered
    return quantised(pixels)


def backdrop(colours: frozenset[str], size: int, rng: np.random.Generator) -> np.ndarray:
    """A background for letters in these colours: float (size, size, 3) in [0, 1].

    Its two colours have a luma in the same clear interval, hence so has every mixture of them.

    Raises:
        ValueError: there is none.
    """
    clear = clear_lumas(colours)
    if not clear:
        raise ValueError(f"no background contrasts with letters in all of the colours {', '.join(sorted(colours))}")
    widths = np.array([high - low for low, high in clear])
    low, high = clear[rng.choice(len(clear), p=widths / widths.sum())]
    first = with_luma(rng.uniform(0, 1, size=3), rng.uniform(low, high))
    second = with_luma(near(first, rng), rng.uniform(low, high))
    return textured(first, second, size, rng)


def luma(colour: str) -> float:
    """Of a named colour, in [0, 1]."""
    return float(np.array(COLOURS[colour]) @ LUMA)


def tint(colour: str, rng: np.random.Generator) -> np.ndarray:
    """RGB near a named colour, of exactly its luma."""
    return with_luma(np.clip(COLOURS[colour] + rng.uniform(-_JITTER, _JITTER, size=3), 0, 1), luma(colour))


def coverage(letter: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel of a quadrant the letter covers: float (size, size) in [0, 1]; no part is cut off."""
    canvas = size * SUPERSAMPLE
    name = FONTS[rng.integers(len(FONTS))]
    angle = rng.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES)
    left, top, right, bottom = typeface(name, canvas).getbbox(letter)
    cosine, sine = math.cos(math.radians(angle)), abs(math.sin(math.radians(angle)))
    width, height = right - left, bottom - top
    box = np.array([width * cosine + height * sine, width * sine + height * cosine])  # around the rotated letter
    scale = rng.uniform(*_EXTENT) * canvas / box.max()
    shift = rng.uniform(-_SHIFT, _SHIFT, size=2) * (canvas - box * scale) / 2
    centre = canvas / 2 + shift
    return rasterised(letter, typeface(name, int(canvas * scale)), (centre[0], centre[1]), angle, size)
