"""The embedded glyphs as a data set like any other."""

from __future__ import annotations

from functools import partial

from bigain.data.catalogue import Catalogue
from bigain.data.glyphs import CLASSES, Glyphs
from bigain.data.item import Entry, Pixels
from bigain.data.prompts import LETTER


def glyphs(split: str, size: int) -> Catalogue:
    """All images of a split, ids like ``glyphs-test-000123``, drawn at ``size`` x ``size`` pixels on demand.

    Raises:
        ValueError: unknown split, or a size under 16.
    """
    data = Glyphs(split, size)
    entries = tuple(
        Entry(f"glyphs-{split}-{index:06d}", partial(_draw, data, index), (index % len(CLASSES),))
        for index in range(len(data))
    )
    return Catalogue("glyphs", CLASSES, entries, LETTER, condition_labels=tuple(range(len(CLASSES))))


def _draw(data: Glyphs, index: int) -> Pixels:
    return data[index][0]
