"""Moving letters, the embedded videos: one coloured letter that moves in a named direction, and a sentence about it.

Like a glyph, a video is a pure function of ``(seed, split, index, size, frames)``. The letter keeps its shape and its
speed, and never leaves the picture; the background stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import ClassVar

import numpy as np

from bigain.data import glyphs
from bigain.data.dataset import ImageCollection, Item
from bigain.data.glyphs import CLASSES, SUPERSAMPLE, Drawn
from bigain.data.scenes import COLOURS, backdrop, cut, tint
from bigain.images import Pixels

DIRECTIONS: dict[str, tuple[int, int]] = {
    "to the left": (-1, 0),
    "to the right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""Columns and rows that a letter moves by."""
MOVES: tuple[str, ...] = tuple(f"{letter} moving {direction}" for letter, direction in product(CLASSES, DIRECTIONS))
"""The classes: a letter and its direction."""
FRAMES = 9  # the first and eight more, as video autoencoders take 4 · n + 1
VIDEO = "a video of the letter {}"

_LAYOUT, _PIXELS = 3, 4  # the two random streams of a video, beside those of the scenes
_EXTENT = (0.6, 0.75)  # of the box around a rotated letter, in sides of the picture
_TRAVEL = (0.7, 1.0)  # of the room that the letter leaves in its direction
_SHADE = 0.08  # peak to peak, of the texture of a letter, relative to its colour


@dataclass(frozen=True)
class Moving:
    """A letter of ``CLASSES``, the name of its colour in ``COLOURS``, and its direction, one of ``DIRECTIONS``."""

    letter: str
    colour: str
    direction: str

    def __post_init__(self) -> None:
        for field, allowed in (("letter", CLASSES), ("colour", COLOURS), ("direction", DIRECTIONS)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")

    @property
    def label(self) -> int:
        """Its class, a place in ``MOVES``."""
        return MOVES.index(f"{self.letter} moving {self.direction}")

    @property
    def caption(self) -> str:
        """All that is to be said: "a video of a red letter A moving up"."""
        article = "an" if self.colour[0] in "aeiou" else "a"
        return f"a video of {article} {self.colour} letter {self.letter} moving {self.direction}"


@dataclass(frozen=True)
class MovingLetters(Drawn):
    """One split of the videos; any 40 in a row show every letter in every direction."""

    size: int = 64
    frames: int = FRAMES
    smallest: ClassVar[int] = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, not {self.frames}")

    def shows(self, index: int) -> Moving:
        """What a video shows, without drawing it. Does not depend on its size."""
        colour = list(COLOURS)[self.stream(index, _LAYOUT).integers(len(COLOURS))]
        directions = list(DIRECTIONS)
        turn = index // len(CLASSES)
        return Moving(CLASSES[index % len(CLASSES)], colour, directions[turn % len(directions)])

    def path(self, index: int) -> np.ndarray:
        """Where the middle of the letter is in each frame: float (frames, 2), columns and rows in [0, 1]."""
        return self._drawing(index)[0] / (self.size * SUPERSAMPLE)

    def pixels(self, index: int) -> Pixels:
        """Draws one video: uint8 (frames, size, size, 3)."""
        path, font, angle, rng = self._drawing(index)
        shown = self.shows(index)
        behind = backdrop(frozenset([shown.colour]), self.size, rng)
        shade = 1.0 + _SHADE * (glyphs.texture(self.size, rng)[..., None] - 0.5)
        letter = tint(shown.colour, rng) * shade
        pictures = []
        for column, row in path:
            covered = glyphs.rasterised(shown.letter, font, (column, row), angle, self.size)[..., None]
            pictures.append(glyphs.quantised(behind * (1 - covered) + letter * covered))
        return np.stack(pictures)

    def _drawing(self, index: int) -> tuple[np.ndarray, glyphs.Typeface, float, np.random.Generator]:
        """The path in pixels of the canvas, the typeface and the angle; the rest of the random stream."""
        shown, rng = self.shows(index), self.stream(index, _PIXELS)
        canvas = self.size * SUPERSAMPLE
        font, angle, box = cut(shown.letter, canvas, _EXTENT, rng)
        room = canvas - box
        towards = np.array(DIRECTIONS[shown.direction])
        travel = rng.uniform(*_TRAVEL) * room * abs(towards)
        corner = rng.uniform(size=2) * (room - travel)  # of what the letter's way covers
        along = np.linspace(0, 1, self.frames)[:, None] if self.frames > 1 else np.full((1, 1), 0.5)
        way = np.where(towards < 0, 1 - along, along) * travel
        return corner + way + box / 2, font, angle, rng


def moving(split: str, size: int) -> ImageCollection:
    """All videos of a split, ids like ``glyphs-moving-test-000123``, drawn at ``size`` x ``size`` pixels on demand."""
    data = MovingLetters(split, size)
    entries = []
    for index in range(len(data)):
        shown = data.shows(index)
        identity = f"glyphs-moving-{split}-{index:06d}"
        entries.append(Item(identity, partial(data.pixels, index), (shown.label,), shown.caption))
    return ImageCollection("glyphs-moving", MOVES, tuple(entries), template=VIDEO)
