"""The networks behind FID and KID."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bigain import zoo
from bigain.data.glyphs import CLASSES, SPLITS, Glyphs, draw
from bigain.metrics.distribution import fid
from bigain.metrics.features import GlyphFeatures, Recogniser, RecogniserConfig, load_recogniser

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
        GlyphFeatures(size, CPU)


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


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return load_recogniser()


@pytest.fixture(scope="module")
def letters() -> tuple[np.ndarray, np.ndarray]:
    return np.stack([Glyphs("test").pixels(i) for i in range(300)]), np.arange(300) % len(CLASSES)


def test_it_recognises_letters_that_it_was_not_trained_on(recogniser, letters):
    images, labels = letters
    predictions = recogniser.predict(images)
    assert predictions.shape == (300,)
    assert (predictions == labels).mean() >= 0.98
    assert recogniser.config.classes == CLASSES


def test_it_looks_at_the_letter_and_not_at_the_background(recogniser):
    # The random stream of a test image, hence its background and colours, but another letter.
    labels = np.array([(i + 3 + i // 10) % 10 for i in range(100)])
    streams = [np.random.default_rng([0, sorted(SPLITS).index("test"), i]) for i in range(100)]
    images = [draw(CLASSES[label], 32, stream) for label, stream in zip(labels, streams, strict=True)]
    assert (recogniser.predict(np.stack(images)) == labels).mean() >= 0.98


def test_its_card_states_the_measured_accuracy():
    stated = json.loads((zoo.path("glyphs-recogniser") / "config.json").read_text())["accuracy"]
    card = (zoo.path("glyphs-recogniser") / "README.md").read_text()
    assert stated["test"] >= 0.99
    for split in ("validation", "test"):
        assert f"{100 * stated[split]:.2f}%" in card


def test_slight_noise_does_not_mislead_it(recogniser, letters):
    images, labels = letters
    noise = np.random.default_rng(0).normal(0, 12, images.shape)
    noisy = np.clip(images + noise, 0, 255).astype(np.uint8)
    assert (recogniser.predict(noisy) == labels).mean() >= 0.95


def test_features_do_not_depend_on_the_batch(recogniser, letters):
    images = letters[0][:50]
    features = recogniser.features(images)
    assert features.shape == (50, recogniser.num_features)
    assert features.dtype == np.float64
    np.testing.assert_allclose(recogniser.features(images, batch_size=7), features, atol=1e-4)


def test_logits_are_the_head_of_the_features(recogniser, letters):
    images = letters[0][:20]
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = recogniser.head(recogniser(batch)).double().numpy()
    np.testing.assert_allclose(recogniser.logits(images), expected, atol=1e-3)
    assert (recogniser.predict(images) == expected.argmax(axis=1)).all()


def test_its_features_tell_damaged_letters_from_drawn_ones(recogniser, letters):
    images = letters[0]
    noise = np.random.default_rng(0).normal(0, 40, images[150:].shape)
    noisy = np.clip(images[150:] + noise, 0, 255).astype(np.uint8)
    clean = fid(*(recogniser.features(part) for part in (images[:150], images[150:])))
    assert fid(recogniser.features(images[:150]), recogniser.features(noisy)) > 2 * clean


def test_it_is_frozen_and_small(recogniser):
    assert not recogniser.training
    assert not any(p.requires_grad for p in recogniser.parameters())
    assert sum(p.numel() for p in recogniser.parameters()) < 500_000


def test_it_refuses_other_images(recogniser):
    with pytest.raises(ValueError, match=r"uint8 \(B, 3, 32, 32\)"):
        recogniser.predict(np.zeros((1, 16, 16, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        recogniser.predict(np.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="uint8"):
        recogniser(torch.zeros(1, 3, 32, 32))


def test_what_is_written_is_what_is_loaded(tmp_path):
    config = RecogniserConfig(classes=("left", "right"), size=16, widths=(2, 3, 4, 5), features=6)
    with torch.random.fork_rng(devices=[]):
        model = Recogniser(config).eval()
    with pytest.raises(FileNotFoundError, match=r"must have config\.json"):
        load_recogniser(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": asdict(config)}))
    with pytest.raises(FileNotFoundError, match=r"must have model\.safetensors"):
        load_recogniser(tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = load_recogniser(tmp_path)
    assert loaded.config == config
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(loaded.features(images), model.features(images))


@pytest.mark.parametrize(
    ("field", "value"), [("classes", ("one",)), ("size", 20), ("size", 0), ("widths", (1, 2, 3)), ("features", 0)]
)
def test_a_bad_configuration_names_its_field(field, value):
    arguments = {"classes": ("a", "b"), field: value}
    with pytest.raises(ValueError, match=field):
        RecogniserConfig(**arguments)
