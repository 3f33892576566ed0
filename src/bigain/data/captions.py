"""Sentences about scenes: the full one, and partial ones for training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from bigain.data.glyphs import CLASSES
from bigain.data.prompts import LETTER
from bigain.data.scenes import COLOURS, PLACES, Placed

_OPENING = "a photo of"
_AND = " and "


def describe(letters: Sequence[Placed]) -> str:
    """All that is to be said: every letter with its colour and place, in the order given.

    Example:
        >>> describe([Placed("A", "red", "top left"), Placed("B", "orange", "bottom right")])
        'a photo of a red letter A at the top left and an orange letter B at the bottom right'

    Raises:
        ValueError: no letters.
    """
    return _sentence([_phrase(placed, coloured=True, located=True) for placed in letters])


def enumerate_letters(names: Sequence[str]) -> str:
    """The letters alone: ``prompts.LETTER`` for one of them.

    Example:
        >>> enumerate_letters("A"), enumerate_letters("AB")
        ('a photo of the letter A', 'a photo of the letters A and B')

    Raises:
        ValueError: no letters.
    """
    if len(names) == 1:
        return LETTER.replace("{}", names[0])
    return _sentence([f"the letters {_AND.join(names)}"] if names else [])


def vary(letters: Sequence[Placed], rng: np.random.Generator) -> str:
    """A caption for training, true of the scene but rarely the whole truth.

    A quarter is ``describe`` of the whole scene. The others name a random non-empty part of the letters, in order (all
    sizes alike): a quarter of all as ``enumerate_letters``, half with a coin per letter for its colour and another for
    its place.

    Raises:
        ValueError: no letters.
    """
    form = rng.integers(4)
    if form == 0 or not letters:
        return describe(letters)
    count = int(rng.integers(1, len(letters) + 1))
    part = [letters[position] for position in sorted(rng.permutation(len(letters))[:count])]
    if form == 1:
        return enumerate_letters([placed.letter for placed in part])
    coins = rng.integers(2, size=(count, 2)).astype(bool)
    return _sentence([_phrase(placed, *coin) for placed, coin in zip(part, coins.tolist(), strict=True)])


def _phrase(placed: Placed, coloured: bool, located: bool) -> str:
    noun = f"{placed.colour} letter {placed.letter}" if coloured else f"letter {placed.letter}"
    article = "an" if noun[0] in "aeiou" else "a"
    return f"{article} {noun} at the {placed.place}" if located else f"{article} {noun}"


def _sentence(phrases: Sequence[str]) -> str:
    if not phrases:
        raise ValueError("letters must hold at least one letter to speak of, not none")
    return f"{_OPENING} {_AND.join(phrases)}"


def _words() -> tuple[str, ...]:
    captions = [describe([Placed(*parts)]) for parts in product(CLASSES, COLOURS, PLACES)]
    captions += [enumerate_letters(CLASSES), *map(enumerate_letters, CLASSES)]
    return tuple(sorted({word for caption in captions for word in caption.split()}))


WORDS: tuple[str, ...] = _words()
"""Every word that a caption of this module can hold."""
