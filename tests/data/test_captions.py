from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.data.glyphs import CLASSES
from bigain.data.scenes import COLOURS, PLACES, Placed, describe

PHRASE = re.compile(rf"an? (?:({'|'.join(COLOURS)}) )?letter ([A-Z])(?: at the ({'|'.join(PLACES)}))?")
SCENE = (Placed("S", "orange", "top left"), Placed("A", "red", "top right"), Placed("B", "red", "bottom right"))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Placed, ...]:
    letters = draw(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=4, unique=True))
    places = sorted(draw(st.permutations(range(4)))[: len(letters)])
    colours = [draw(st.sampled_from(sorted(COLOURS))) for _ in letters]
    return tuple(Placed(*each) for each in zip(letters, colours, [PLACES[p] for p in places], strict=True))


def said(caption: str) -> list[tuple[str, str, str]]:
    """The letters that a caption names with the colours and places that it gives them, "" where it gives none."""
    phrases = caption.removeprefix("a photo of ").split(" and ")
    matches = [PHRASE.fullmatch(phrase) for phrase in phrases]
    assert all(matches), caption
    return [(match[2], match[1] or "", match[3] or "") for match in matches if match]


def test_the_full_caption() -> None:
    assert describe(SCENE) == (
        "a photo of an orange letter S at the top left and a red letter A at the top right "
        "and a red letter B at the bottom right"
    )


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_the_full_caption_says_everything(letters: tuple[Placed, ...]) -> None:
    assert said(describe(letters)) == [(placed.letter, placed.colour, placed.place) for placed in letters]


def test_there_must_be_a_letter() -> None:
    with pytest.raises(ValueError, match="at least one letter"):
        describe([])
