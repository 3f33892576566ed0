from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bigain.data import load
from bigain.data.glyphs import CLASSES, SPLITS, Glyphs


def pixels(split: str = "test", size: int = 32, seed: int = 0, indices: range = range(12)) -> np.ndarray:
    data = Glyphs(split, size, seed)
    return np.stack([data.pixels(index) for index in indices])


@pytest.mark.parametrize("size", [16, 32, 64])
def test_an_image_is_rgb_and_shows_something(size: int) -> None:
    image = Glyphs("test", size).pixels(17)
    assert image.dtype == np.uint8
    assert image.shape == (size, size, 3)
    assert image.std() > 5, "a flat image shows no letter"


def test_the_same_arguments_give_the_same_pixels() -> None:
    np.testing.assert_array_equal(pixels(), pixels())


def test_an_image_does_not_depend_on_what_was_drawn_before() -> None:
    np.testing.assert_array_equal(pixels(indices=range(8)), pixels(indices=range(7, -1, -1))[::-1])


def test_drawing_leaves_numpys_global_generator_alone() -> None:
    # The legacy call is the only way to see the state that must not move.
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    pixels()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_seeds_and_splits_share_no_image() -> None:
    sets = [pixels(split, seed=seed) for split in SPLITS for seed in (0, 1)]
    images = {image.tobytes() for images in sets for image in images}
    assert len(images) == len(sets) * 12


@pytest.mark.parametrize("length", [10, 25, 200])
def test_every_prefix_is_balanced(length: int) -> None:
    data = load("glyphs", split="test", limit=length, image_size=16)
    counts = Counter(entry.labels[0] for entry in data.entries)
    assert set(counts) == set(range(10))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_length_is_the_splits() -> None:
    assert [len(Glyphs(split)) for split in ("train", "validation", "test")] == [100_000, 2_000, 5_000]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "split must be one of .*'validation'.* not 'val'"),
        ({"size": 15}, "size must be at least 16 pixels.* not 15"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Glyphs(**arguments)


@pytest.mark.parametrize("index", [-1, 5_000])
def test_an_index_out_of_range(index: int) -> None:
    with pytest.raises(IndexError, match=rf"\[0, 5000\), not {index}"):
        Glyphs("test").pixels(index)


def test_as_a_data_set() -> None:
    data = load("glyphs", image_size=32)
    assert len(data) == 5_000
    assert data.name == "glyphs"
    assert data.classes == CLASSES
    assert data.wnids is None
    assert data.prompts is not None
    assert data.prompts[0] == ("a photo of the letter A",)
    item = data[123]
    assert item.id == "glyphs-test-000123"
    assert item.labels == (3,)
    np.testing.assert_array_equal(item.image, Glyphs("test").pixels(123))
    assert load("glyphs", split="validation", image_size=32)[7].id == "glyphs-validation-000007"
