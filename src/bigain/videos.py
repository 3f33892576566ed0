"""From animations and arrays of frames to a video model's input, and back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageSequence

from bigain.images import FORMATS, BadImageError, Pixels, as_images, kind_of, preprocess, to_rgb

if TYPE_CHECKING:
    import torch

RATE = 8  # frames per second of what is written


def encode_video(frames: Pixels, rate: int = RATE, quality: int | None = None) -> bytes:
    """uint8 (T, H, W, 3) as an animated WebP that browsers play over and over; without loss if ``quality`` is None."""
    first, *others = map(Image.fromarray, frames)
    file = io.BytesIO()
    how: dict[str, Any] = {"lossless": True} if quality is None else {"quality": quality}
    first.save(file, "WEBP", save_all=True, append_images=others, duration=1000 // rate, loop=0, **how)
    return file.getvalue()


def read_video(source: Path, frames: int) -> Pixels:
    """``frames`` frames of an animation (WebP, GIF, PNG), evenly over its time, as uint8 (frames, H, W, 3).

    Raises:
        BadImageError: the file is missing, no image that can be read, or too short: shown as long as its shortest
            frame, its frames are fewer.
    """
    if (what := kind_of(source)) != "a file":
        raise BadImageError(f"{source} must be a readable animation, not {what}")
    try:
        with Image.open(source, formats=FORMATS) as image:
            return _chosen(image, frames, str(source))
    except BadImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadImageError(f"{source} must be a readable animation: {error}") from error


def as_video_batch(videos: Any, size: int, frames: int) -> torch.Tensor:
    """Videos as a model's input, (B, frames, 3, size, size) float32 in [-1, 1].

    Each is the path of an animation, a PIL image of several frames or a uint8 array (T, H, W, 3), T at least
    ``frames``, of which that many are taken evenly over time. A tensor comes back as it is. Raises as
    :func:`read_video` and :func:`bigain.images.preprocess`, and a TypeError for another type.
    """
    import torch

    if isinstance(videos, torch.Tensor):
        return videos
    return torch.stack([torch.stack([preprocess(one, size) for one in _frames(video, frames)]) for video in videos])


def as_videos(videos: Any) -> Any:
    """Videos of any kind as a sequence of them, as :func:`bigain.images.as_images` does for images.

    One video, a uint8 array (T, H, W, 3), becomes a sequence of one.
    """
    return [videos] if isinstance(videos, np.ndarray) and videos.ndim == 4 else as_images(videos)


def _frames(video: Any, frames: int) -> Pixels:
    if isinstance(video, (str, Path)):
        return read_video(Path(video), frames)
    if isinstance(video, Image.Image):
        return _chosen(video, frames, "a video")
    if not isinstance(video, np.ndarray):
        raise TypeError(f"a video must be a path, a PIL image or an array (T, H, W, 3), not {type(video).__name__}")
    if video.ndim != 4:
        raise ValueError(f"a video must have the shape (T, H, W, 3), not {video.shape}")
    return video[_places([1.0] * len(video), frames, "a video")]


def _chosen(image: Image.Image, frames: int, name: str) -> Pixels:
    """Frames of an animation, evenly over its time."""
    shown, durations = [], []
    for frame in ImageSequence.Iterator(image):
        shown.append(to_rgb(frame))
        durations.append(float(frame.info.get("duration") or 0))
    shortest = min(durations)
    steps = [duration / shortest for duration in durations] if shortest > 0 else [1.0] * len(shown)
    return np.stack([shown[place] for place in _places(steps, frames, name)])


def _places(steps: list[float], frames: int, name: str) -> list[int]:
    """Which frames are shown at evenly spaced moments, of frames that are shown for so many steps each."""
    ends = np.cumsum(np.round(steps))
    if ends[-1] < frames:
        raise BadImageError(f"{name} must have at least the {frames} frames of the model, not {int(ends[-1])}")
    moments = (np.arange(frames) + 0.5) * ends[-1] / frames
    return [int(place) for place in np.searchsorted(ends, moments, side="right")]
