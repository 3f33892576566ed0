"""Captions for training: true of a scene, but rarely the whole truth; and the words of all captions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from bigain.data.glyphs import CLASSES
from bigain.data.moving import DIRECTIONS, Moving
from bigain.data.prompts import LETTER
from bigain.data.scenes import COLOURS, PLACES, Placed, describe, phrase, sentence


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
    return sentence([phrase(placed, *coin) for placed, coin in zip(part, coins.tolist(), strict=True)])


def of_moving(shown: Moving, moves: bool, coloured: bool, directed: bool) -> str:
    """A caption of a moving letter, or of a still of it: with or without its colour and its direction."""
    article = "an" if shown.colour[0] in "aeiou" else "a"
    noun = f"{article} {shown.colour} letter {shown.letter}" if coloured else f"the letter {shown.letter}"
    if not moves:
        return f"a photo of {noun}"
    return f"a video of {noun} moving {shown.direction}" if directed else f"a video of {noun}"


def enumerate_letters(names: Sequence[str]) -> str:
    """The letters only: "a photo of the letters A and B", or ``prompts.LETTER`` for one of them."""
    if len(names) == 1:
        return LETTER.replace("{}", names[0])
    return sentence([f"the letters {' and '.join(names)}"] if names else [])


def _words() -> tuple[str, ...]:
    captions = [describe([Placed(*parts)]) for parts in product(CLASSES, COLOURS, PLACES)]
    captions += [enumerate_letters(CLASSES), *map(enumerate_letters, CLASSES)]
    return tuple(sorted({word for caption in captions for word in caption.split()}))


WORDS: tuple[str, ...] = _words()
"""Every word that a caption of a scene or of one letter can hold."""
VIDEO_WORDS: tuple[str, ...] = tuple(
    sorted({word for text in (*WORDS, "video moving", *DIRECTIONS) for word in text.split()})
)
"""Those, and every word that a caption of a moving letter can hold."""
