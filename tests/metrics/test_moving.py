"""What is seen in videos: the letter, where it goes, and features over frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bigain.data.moving import DIRECTIONS, MOVES, MovingLetters
from bigain.images import Pixels
from bigain.metrics.features import FeatureNetwork
from bigain.metrics.moving import STILL, MeanOverFrames, MovingGlyphs, path

DATA = MovingLetters("validation", 64)
NETWORK = MovingGlyphs(torch.device("cpu"), tuple(DIRECTIONS.values()))


@pytest.fixture(scope="module")
def videos() -> Pixels:
    return np.stack([DATA.pixels(index) for index in range(40)])


def test_letters_and_directions_of_the_data_are_recognised(videos: Pixels) -> None:
    right = [seen == DATA.shows(index).label for index, seen in enumerate(NETWORK.recognise(videos))]
    assert sum(right) >= 39


def test_a_video_run_backwards_goes_the_other_way(videos: Pixels) -> None:
    there, back = NETWORK.recognise(videos[:12]), NETWORK.recognise(videos[:12, ::-1])
    turned = {"to the left": "to the right", "to the right": "to the left", "up": "down", "down": "up"}
    for one, other in zip(there, back, strict=True):
        letter, _, direction = MOVES[one].partition(" moving ")
        assert MOVES[other] == f"{letter} moving {turned[direction]}"


def test_the_path_is_that_of_the_letter(videos: Pixels) -> None:
    for index, video in enumerate(videos[:12]):
        assert np.abs(path(video) - DATA.path(index) * 64).max() < 6, "the middle of its ink is not that of its box"


def test_what_stands_still_or_trembles_goes_nowhere(videos: Pixels) -> None:
    still = videos[:2, :1].repeat(9, axis=1)
    noise = np.random.default_rng(0).integers(-4, 5, still.shape)
    trembling = (still.astype(int) + noise).clip(0, 255).astype(np.uint8)
    assert NETWORK.recognise(still) == NETWORK.recognise(trembling) == [STILL, STILL]
    assert np.array_equal(path(still[0]), np.full((9, 2), 32.0))
    assert np.isfinite(NETWORK.features(still)).all()


def test_two_frames_are_enough_to_be_seen(videos: Pixels) -> None:
    pair = videos[:3, [0, 8]]
    assert NETWORK.features(pair).shape == (3, 64)
    assert NETWORK.recognise(pair) == [STILL] * 3, "one change has a place, and no direction"


def test_one_by_one_as_together(videos: Pixels) -> None:
    together = NETWORK.features(videos[:3])
    np.testing.assert_allclose(together, np.concatenate([NETWORK.features(one[None]) for one in videos[:3]]), rtol=1e-5)


class Brightness(FeatureNetwork):
    name = "brightness"

    def features(self, images: Pixels) -> np.ndarray:
        return images.reshape(len(images), -1).mean(axis=1, keepdims=True).astype(np.float32)


def test_features_are_averaged_over_frames() -> None:
    videos = np.stack([np.full((3, 2, 2, 3), 10), np.arange(3)[:, None, None, None].repeat(12).reshape(3, 2, 2, 3)])
    network = MeanOverFrames(Brightness())
    np.testing.assert_array_equal(network.features(videos.astype(np.uint8)), [[10], [1]])
    assert network.name == "brightness, mean over frames"
    assert network.recognise(videos) == [None, None]
