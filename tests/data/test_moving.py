"""Moving letters: each moves as its sentence says, at a steady pace, and stays in the picture."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bigain.data import load
from bigain.data.glyphs import CLASSES
from bigain.data.moving import DIRECTIONS, FRAMES, MOVES, Moving, MovingLetters
from bigain.data.scenes import COLOURS

DATA = MovingLetters("validation")


def changed(video: np.ndarray) -> np.ndarray:
    """Where each frame differs from what stands still: bool (frames, H, W)."""
    still = np.median(video, axis=0)
    return abs(video - still).max(-1) > 60


@pytest.mark.parametrize("size", [32, 47, 64])
def test_a_video_is_frames_of_rgb(size: int) -> None:
    video = MovingLetters("test", size, frames=5).pixels(17)
    assert video.dtype == np.uint8
    assert video.shape == (5, size, size, 3)


def test_a_video_is_a_function_of_its_index() -> None:
    assert np.array_equal(MovingLetters("test").pixels(3), MovingLetters("test").pixels(3))
    assert not np.array_equal(MovingLetters("train").pixels(3), MovingLetters("test").pixels(3))


def test_any_forty_show_every_letter_in_every_direction_and_all_colours_come() -> None:
    shown = [DATA.shows(index) for index in range(15, 415)]
    assert Counter(one.label for one in shown[:40]) == dict.fromkeys(range(len(MOVES)), 1)
    assert {one.colour for one in shown} == set(COLOURS)
    assert {one.letter for one in shown} == set(CLASSES)


@pytest.mark.parametrize("index", range(0, 400, 11))
def test_a_letter_moves_as_it_is_said_at_a_steady_pace_and_stays_in_the_picture(index: int) -> None:
    path, towards = DATA.path(index), np.array(DIRECTIONS[DATA.shows(index).direction])
    steps = np.diff(path, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-12)
    assert np.array_equal(np.sign(steps[0].round(9)), towards)
    assert np.linalg.norm(path[-1] - path[0]) > 0.17
    video = DATA.pixels(index)
    assert not np.array_equal(video[0], video[-1])
    still = np.median(video, axis=0)
    rim = np.stack([abs(frame - still) for frame in video.astype(float)])
    assert max(rim[:, [0, -1]].max(), rim[:, :, [0, -1]].max()) < 130  # at most the edge of a letter


@pytest.mark.parametrize("index", range(0, 120, 7))
def test_what_is_drawn_follows_the_path(index: int) -> None:
    masks = changed(DATA.pixels(index))
    grid = np.stack(np.meshgrid(np.arange(64), np.arange(64)), -1)  # columns, rows
    first, last = (grid[masks[frame]].mean(0) / 64 for frame in (0, FRAMES - 1))
    towards = np.array(DIRECTIONS[DATA.shows(index).direction])
    assert (last - first) @ towards > 0.1
    assert abs((last - first) @ towards[::-1]) < 0.1


def test_sentences_name_all_of_it() -> None:
    assert Moving("A", "orange", "to the left").caption == "a video of an orange letter A moving to the left"
    assert Moving("X", "red", "down").caption == "a video of a red letter X moving down"
    with pytest.raises(ValueError, match=r"direction must be one of to the left, .* not 'left'"):
        Moving("A", "red", "left")
    with pytest.raises(ValueError, match="frames must be at least 1, not 0"):
        MovingLetters(frames=0)


def test_it_is_a_data_set_by_name() -> None:
    data = load("glyphs-moving", image_size=32, limit=3)
    assert data.classes == MOVES
    assert data.prompts is not None
    assert data.prompts[5] == ("a video of the letter B moving to the right",)
    item = data[2]
    shown = MovingLetters().shows(int(item.id.removeprefix("glyphs-moving-test-")))
    assert item.image.shape == (FRAMES, 32, 32, 3)
    assert item.labels == (shown.label,)
    assert item.caption == shown.caption
