from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigain.data import load, scenes
from bigain.data.glyphs import CLASSES, LUMA, SPLITS
from bigain.data.scenes import COLOURS, COUNTS, MIN_CONTRAST, PLACES, Placed, Scenes, describe

ROUNDING = 0.01  # of uint8, and of what is within a letter's edge


@pytest.fixture(scope="module")
def layouts() -> list[tuple[Placed, ...]]:
    return [Scenes("train").letters(index) for index in range(5_000)]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, tuple[Placed, ...]]]:
    data = Scenes("test", 64)
    return [(data.pixels(index), data.letters(index)) for index in range(60)]


def quadrant(image: np.ndarray, place: str) -> np.ndarray:
    half = image.shape[0] // 2
    rows = slice(None, half) if place.startswith("top") else slice(-half, None)
    columns = slice(None, half) if place.endswith("left") else slice(-half, None)
    return image[rows, columns] / 255


def rim(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


@pytest.mark.parametrize("size", [32, 33, 64])
def test_a_scene_is_an_rgb_image(size: int) -> None:
    image = Scenes("test", size).pixels(17)
    assert image.dtype == np.uint8
    assert image.shape == (size, size, 3)


def test_two_to_four_different_letters_in_reading_order(layouts) -> None:
    for letters in layouts:
        assert len({placed.letter for placed in letters}) == len(letters) in COUNTS
        places = [PLACES.index(placed.place) for placed in letters]
        assert places == sorted(set(places))
    assert set(map(len, layouts)) == set(COUNTS)


def test_letters_places_and_colours_are_balanced(layouts) -> None:
    every = [placed for letters in layouts for placed in letters]
    for field, values, tolerance in (("letter", CLASSES, 0.05), ("place", PLACES, 0.05), ("colour", COLOURS, 0.2)):
        counts = Counter(getattr(placed, field) for placed in every)
        mean = len(every) / len(values)
        assert set(counts) == set(values)
        assert all(abs(count / mean - 1) < tolerance for count in counts.values()), counts


def test_any_ten_in_a_row_show_all_letters(layouts) -> None:
    for start in range(300):
        assert {placed.letter for letters in layouts[start : start + 10] for placed in letters} == set(CLASSES)


def test_a_scene_does_not_depend_on_what_was_drawn_before() -> None:
    data = Scenes("validation", 32)
    backwards = {index: (data.pixels(index), data.letters(index)) for index in reversed(range(8))}
    for index in range(8):
        np.testing.assert_array_equal(data.pixels(index), backwards[index][0])
        assert data.letters(index) == backwards[index][1]


def test_what_is_shown_does_not_depend_on_the_size() -> None:
    assert [Scenes(size=32).letters(i) for i in range(20)] == [Scenes(size=64).letters(i) for i in range(20)]


def test_seeds_and_splits_share_no_scene() -> None:
    sets = [Scenes(split, 32, seed) for split in SPLITS for seed in (0, 1)]
    assert len({data.pixels(i).tobytes() for data in sets for i in range(8)}) == 8 * len(sets)
    assert len({tuple(data.letters(i) for i in range(8)) for data in sets}) == len(sets)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 2**32))
def test_every_background_pixel_contrasts_with_every_pixel_of_a_letter(data: st.DataObject, seed: int) -> None:
    colours = data.draw(st.sampled_from(scenes.colourings(data.draw(st.sampled_from((1, *COUNTS))))))
    rng = np.random.default_rng(seed)
    background = scenes.backdrop(frozenset(colours), 16, rng)
    assert background.min() >= -1e-9
    assert background.max() <= 1 + 1e-9
    for colour in colours:
        tint = scenes.tint(colour, rng)
        assert min(COLOURS, key=lambda name: np.linalg.norm(tint - COLOURS[name])) == colour
        for shade in (0.96, 1.04):
            contrast = np.abs(background @ LUMA - min(1.0, shade * float(tint @ LUMA)))
            assert contrast.min() >= MIN_CONTRAST - 1e-9


def test_drawn_backgrounds_contrast_with_all_letters(drawn) -> None:
    for image, letters in drawn:
        taken = {placed.place for placed in letters}
        for place in PLACES:
            part = quadrant(image, place)
            background = rim(part) if place in taken else part.reshape(-1, 3)
            for placed in letters:
                contrast = np.abs(background @ LUMA - scenes.luma(placed.colour))
                assert contrast.min() >= MIN_CONTRAST - ROUNDING


def test_each_letter_is_in_its_place_in_its_colour(drawn) -> None:
    for image, letters in drawn:
        for placed in letters:
            distance = np.abs(quadrant(image, placed.place) - COLOURS[placed.colour]).max(axis=2)
            assert (distance < 0.2).sum() >= 20, placed


@pytest.mark.parametrize("letter", CLASSES)
def test_no_letter_is_cut_off(letter: str) -> None:
    for seed in range(40):
        covered = scenes.coverage(letter, 32, np.random.default_rng(seed))
        assert rim(covered).max() < 0.02, "more than what resampling spreads"
        rows, columns = np.nonzero(covered > 0.5)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 >= 16, "too small to be read"


def test_colours_without_a_background_are_refused() -> None:
    colours = ("white", "orange", "blue")
    assert colours not in scenes.colourings(3)
    letters = [Placed(letter, colour, place) for letter, colour, place in zip("ABE", colours, PLACES, strict=False)]
    with pytest.raises(ValueError, match="room for a background, not blue, orange, white"):
        scenes.draw(letters, 32, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "split must be one of .*'validation'.* not 'val'"),
        ({"size": 31}, "size must be at least 32 pixels.* not 31"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenes(**arguments)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("letter", "C", "A, B, E"), ("colour", "pink", "red, orange"), ("place", "middle", "top left, top right")],
)
def test_a_placed_letter_checks_itself(field: str, value: str, allowed: str) -> None:
    arguments = {"letter": "A", "colour": "red", "place": "top left"} | {field: value}
    with pytest.raises(ValueError, match=f"{field} must be one of {allowed}.*, not '{value}'"):
        Placed(**arguments)


@pytest.mark.parametrize("index", [-1, 5_000])
def test_an_index_out_of_range(index: int) -> None:
    with pytest.raises(IndexError, match=rf"\[0, 5000\), not {index}"):
        Scenes("test").letters(index)
    with pytest.raises(IndexError, match=rf"\[0, 5000\), not {index}"):
        Scenes("test").pixels(index)


def test_as_a_data_set() -> None:
    data = load("glyphs-scenes", image_size=64)
    assert len(data) == 5_000
    assert data.name == "glyphs-scenes"
    assert data.multi_label
    assert data.classes == CLASSES
    assert data.wnids is None
    assert data.prompts is not None
    assert data.prompts[0] == ("a photo of a letter A",)
    item, letters = data[123], Scenes("test").letters(123)
    assert item.id == "glyphs-scenes-test-000123"
    assert item.labels == tuple(CLASSES.index(placed.letter) for placed in letters)
    assert item.caption == describe(letters)
    np.testing.assert_array_equal(item.image, Scenes("test").pixels(123))
    assert load("glyphs-scenes", split="validation", image_size=32)[7].id == "glyphs-scenes-validation-000007"


def test_labels_and_captions_are_known_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "draw", None)
    before = time.process_time()
    entries = load("glyphs-scenes", image_size=64, limit=1_000).entries
    assert time.process_time() - before < 2, "all 5,000 are laid out"
    assert all(len(entry.labels) in COUNTS and entry.caption for entry in entries)
    with pytest.raises(TypeError):
        entries[0].pixels()


def test_a_model_too_small_for_scenes() -> None:
    with pytest.raises(ValueError, match=r"size must be at least 32 pixels.* not 16"):
        load("glyphs-scenes", image_size=16)
