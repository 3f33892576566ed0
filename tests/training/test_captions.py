"""The captions that the text-to-image model is trained with."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.data.glyphs import CLASSES
from bigain.data.prompts import LETTER
from bigain.data.scenes import COLOURS, PLACES, Placed, describe
from captions import WORDS, enumerate_letters, vary

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
    listed = re.fullmatch(r"a photo of the letters? ([A-Z](?: and [A-Z])*)", caption)
    if listed is not None:
        letters = listed[1].split(" and ")
        assert ("letters" in caption) == (len(letters) > 1)
        return [(letter, "", "") for letter in letters]
    phrases = caption.removeprefix("a photo of ").split(" and ")
    matches = [PHRASE.fullmatch(phrase) for phrase in phrases]
    assert all(matches), caption
    return [(match[2], match[1] or "", match[3] or "") for match in matches if match]


@settings(max_examples=100, deadline=None)
@given(scenes(), st.integers(0, 2**32))
def test_a_varied_caption_names_only_what_is_there_in_order(letters: tuple[Placed, ...], seed: int) -> None:
    caption = vary(letters, np.random.default_rng(seed))
    assert set(caption.split()) <= set(WORDS)
    order = [placed.letter for placed in letters]
    named = [letter for letter, _, _ in said(caption)]
    assert named == sorted(set(named), key=order.index)
    for letter, colour, place in said(caption):
        placed = letters[order.index(letter)]
        assert colour in ("", placed.colour)
        assert place in ("", placed.place)


def test_varied_captions_take_all_forms() -> None:
    rng = np.random.default_rng(0)
    captions = [vary(SCENE, rng) for _ in range(600)]
    forms = [
        LETTER.format("A"),
        "a photo of the letters S and B",
        "a photo of the letters S and A and B",
        "a photo of a letter A",
        "a photo of a red letter A",
        "a photo of a letter A at the top right",
        "a photo of an orange letter S at the top left",
        "a photo of a red letter A and a letter B at the bottom right",
        describe(SCENE),
    ]
    assert set(forms) <= set(captions)
    assert captions.count(describe(SCENE)) >= 100
    assert sum("the letter" in caption for caption in captions) >= 100


def test_a_varied_caption_is_a_function_of_the_generators_state() -> None:
    assert [vary(SCENE, np.random.default_rng(seed)) for seed in range(20)] == [
        vary(SCENE, np.random.default_rng(seed)) for seed in range(20)
    ]


def test_a_varied_caption_needs_a_letter() -> None:
    with pytest.raises(ValueError, match="at least one letter"):
        vary([], np.random.default_rng(1))


def test_letters_alone() -> None:
    assert [enumerate_letters(name) for name in CLASSES] == [LETTER.format(name) for name in CLASSES]
    assert enumerate_letters(["X", "B", "A"]) == "a photo of the letters X and B and A"


def test_the_words_are_those_of_captions_and_no_others() -> None:
    letters, colours, places = set(CLASSES), set(COLOURS), {word for place in PLACES for word in place.split()}
    rest = {"a", "an", "photo", "of", "the", "letter", "letters", "at", "and"}
    assert set(WORDS) == letters | colours | places | rest
    assert list(WORDS) == sorted(set(WORDS))


def test_letters_alone_need_a_letter() -> None:
    with pytest.raises(ValueError, match="at least one letter"):
        enumerate_letters([])
