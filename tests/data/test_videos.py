"""Videos: animations written and read back, frames chosen evenly over time, and batches of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigain.images import BadImageError, content_id, preprocess, to_uint8
from bigain.videos import as_video_batch, as_videos, encode_video, read_video


def _video(frames: int, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)


def _written(path: Path, video: np.ndarray, durations: int | list[int] = 100) -> Path:
    first, *others = map(Image.fromarray, video)
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)
    return path


def test_what_is_written_is_read_back_to_the_bit(tmp_path):
    video = _video(5)
    (tmp_path / "video.webp").write_bytes(encode_video(video))
    assert np.array_equal(read_video(tmp_path / "video.webp", 5), video)


def test_equal_frames_are_not_lost(tmp_path):
    """Formats keep them as one that is shown for longer."""
    video = _video(3)[[0, 1, 1, 1, 2, 2]]
    (tmp_path / "video.webp").write_bytes(encode_video(video))
    assert np.array_equal(read_video(tmp_path / "video.webp", 6), video)


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_frames_are_chosen_evenly_over_time(tmp_path, suffix):
    path = _written(
        tmp_path / f"video.{suffix}",
        np.repeat(np.arange(4, dtype=np.uint8), 16 * 16 * 3).reshape(4, 16, 16, 3) * 60,
        [100, 300, 100, 100],
    )
    shades = read_video(path, 3)[:, 0, 0, 0].round(-1) // 60
    assert shades.tolist() == [1, 1, 3]  # of the moments 1, 3 and 5 in a time of 6


def test_a_video_that_is_too_short_and_what_is_none(tmp_path):
    path = _written(tmp_path / "video.png", _video(3))
    with pytest.raises(BadImageError, match=r"video.png must have at least the 4 frames of the model, not 3"):
        read_video(path, 4)
    with pytest.raises(BadImageError, match=r"missing.png must be a readable animation, not missing"):
        read_video(tmp_path / "missing.png", 4)
    (tmp_path / "bad.webp").write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"bad.webp must be a readable animation: "):
        read_video(tmp_path / "bad.webp", 4)


def test_a_batch_of_paths_images_and_arrays(tmp_path):
    video = _video(4)
    path = _written(tmp_path / "video.png", video)
    with Image.open(path) as image:
        batch = as_video_batch([str(path), path, image, video], 8, 2)
    assert batch.shape == (4, 2, 3, 8, 8)
    expected = torch.stack([preprocess(video[place], 8) for place in (1, 3)])
    for one in batch:
        assert torch.equal(one, expected)
    assert as_video_batch(batch, 8, 2) is batch
    assert len(as_videos(video)) == 1


@pytest.mark.parametrize(
    ("video", "error", "message"),
    [
        (_video(4)[0], ValueError, r"a video must have the shape \(T, H, W, 3\), not \(16, 16, 3\)"),
        (_video(1), BadImageError, "a video must have at least the 2 frames of the model, not 1"),
        (3, TypeError, "a video must be a path, a PIL image or an array .* not int"),
    ],
)
def test_bad_videos(video, error, message):
    with pytest.raises(error, match=message):
        as_video_batch([video], 8, 2)


def test_a_video_is_named_by_all_its_frames():
    video = torch.rand(3, 3, 8, 8) * 2 - 1
    other = video.clone()
    other[2, 0, 0, 0] = -other[2, 0, 0, 0]
    assert content_id(video) == content_id(video.double())
    assert len({content_id(video), content_id(other), content_id(video[:2]), content_id(video[0])}) == 4
    assert to_uint8(video[None]).shape == (1, 3, 8, 8, 3)
    assert np.array_equal(to_uint8(video[None])[0], to_uint8(video))
