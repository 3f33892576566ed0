"""Captions for training: true of a scene, but rarely the whole truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bigain.data.scenes import Placed, describe, enumerate_letters, phrase, sentence


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
