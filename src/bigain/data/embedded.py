"""The embedded glyphs and scenes as data sets like any other."""

from __future__ import annotations

from functools import partial

from bigain.data.captions import describe
from bigain.data.catalogue import Catalogue
from bigain.data.glyphs import CLASSES, Glyphs
from bigain.data.item import Entry, Pixels
from bigain.data.prompts import LETTER, ONE_LETTER
from bigain.data.scenes import Scenes


def glyphs(split: str, size: int) -> Catalogue:
    """All images of a split, ids like ``glyphs-test-000123``, drawn at ``size`` x ``size`` pixels on demand.

    Raises:
        ValueError: unknown split, or a size under 16.
    """
    data = Glyphs(split, size)
    entries = tuple(
        Entry(f"glyphs-{split}-{index:06d}", partial(_glyph, data, index), (index % len(CLASSES),))
        for index in range(len(data))
    )
    return _catalogue("glyphs", entries, LETTER)


def scenes(split: str, size: int) -> Catalogue:
    """All scenes of a split, ids like ``glyphs-scenes-test-000123``, drawn at ``size`` x ``size`` pixels on demand.

    Multi-label: the letters in reading order of their places; the caption names each with its colour and place. The
    prompt of a class is ``prompts.ONE_LETTER``, the caption of a scene that tells of one of its letters alone.

    Raises:
        ValueError: unknown split, or a size under 32.
    """
    data = Scenes(split, size)
    entries = []
    for index in range(len(data)):
        letters = data.letters(index)
        labels = tuple(CLASSES.index(placed.letter) for placed in letters)
        identity = f"glyphs-scenes-{split}-{index:06d}"
        entries.append(Entry(identity, partial(_scene, data, index), labels, describe(letters)))
    return _catalogue("glyphs-scenes", tuple(entries), ONE_LETTER, multi_label=True)


def _catalogue(name: str, entries: tuple[Entry, ...], template: str, multi_label: bool = False) -> Catalogue:
    return Catalogue(name, CLASSES, entries, template, multi_label, condition_labels=tuple(range(len(CLASSES))))


def _glyph(data: Glyphs, index: int) -> Pixels:
    return data[index][0]


def _scene(data: Scenes, index: int) -> Pixels:
    return data[index].image
