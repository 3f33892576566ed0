"""The networks behind FID and KID."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bigain.metrics.features import GlyphFeatures, feature_network

CPU = torch.device("cpu")


def test_larger_images_are_averaged_down_first() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    large[0, :2, :2] = [[[0, 0, 0], [1, 1, 1]], [[2, 2, 2], [4, 4, 4]]]
    small[0, 0, 0] = 2  # the mean, 1.75, rounded
    at_32, at_64 = GlyphFeatures(32, CPU), GlyphFeatures(64, CPU)
    np.testing.assert_array_equal(at_64.features(large), at_32.features(small))
    assert at_64.recognise(large) == at_32.recognise(small)
    assert at_32.name == "glyphs-recogniser"
    assert at_64.name == "glyphs-recogniser, 2x2 pixels averaged"


@pytest.mark.parametrize("size", [16, 48, 33])
def test_a_size_that_averaging_does_not_reach_is_named(size: int) -> None:
    with pytest.raises(ValueError, match=f"must be a multiple of 32 pixels for the recogniser, not {size}"):
        feature_network("recogniser", size, CPU)


def test_scenes_are_seen_quadrant_by_quadrant() -> None:
    scene = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    alone, network = GlyphFeatures(32, CPU), GlyphFeatures(64, CPU, quadrants=True)
    corners = [scene[:, :32, :32], scene[:, :32, 32:], scene[:, 32:, :32], scene[:, 32:, 32:]]
    expected = sum(alone.features(corner) for corner in corners) / 4
    np.testing.assert_allclose(network.features(scene), expected, rtol=1e-5)
    assert network.recognise(scene) == [None, None]
    assert network.name.endswith("mean of the four quadrants")
    with pytest.raises(ValueError, match="scenes must be a multiple of 64 pixels"):
        GlyphFeatures(32, CPU, quadrants=True)
