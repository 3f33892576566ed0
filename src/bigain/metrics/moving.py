"""What networks of images see in videos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from bigain.images import Pixels
from bigain.metrics.features import FeatureNetwork, Features, load_recogniser

STILL = -1
"""What is recognised where nothing moves; no class."""

_NOISE = 24  # of 765: a change of a pixel over its three channels that is no motion
_LEAST = 0.1  # of the side of the picture: a shorter way is none
_SEEN = 0.9  # of the side: what the recogniser sees around the letter, whose box has 0.6 to 0.75


class MeanOverFrames(FeatureNetwork):
    """The features of all frames of a video by a network of images, averaged; recognises nothing."""

    def __init__(self, network: FeatureNetwork) -> None:
        self.network = network
        self.name = f"{network.name}, mean over frames"

    def features(self, images: Pixels) -> Features:
        """Of uint8 (N, T, H, W, 3): float32 (N, D)."""
        features = self.network.features(images.reshape(-1, *images.shape[2:]))
        return features.reshape(*images.shape[:2], -1).mean(axis=1)


class MovingGlyphs(FeatureNetwork):
    """Follows the letter of each video, and has the embedded recogniser look at it in every frame.

    Where it is comes from what changes between frames, by a straight line through the middles of the changes. Features
    are the mean over the frames. Classes are the recogniser's letters, each in all of ``directions``: the letter that
    is most likely over all frames, and the direction that its path has most of.

    Args:
        device: where the recogniser runs.
        directions: columns and rows that a letter may move by, in their order within a letter's classes.
    """

    name = "glyphs-recogniser around the letter, mean over frames"

    def __init__(self, device: torch.device, directions: Sequence[tuple[int, int]]) -> None:
        self.network = load_recogniser().to(device)
        self.directions = np.array(directions)

    def features(self, images: Pixels) -> Features:
        """Of uint8 (N, T, H, W, 3): float32 (N, D)."""
        means = [self.network.features(self._seen(video, path(video))).mean(axis=0) for video in images]
        return np.stack(means).astype(np.float32)

    def recognise(self, images: Pixels) -> Sequence[int]:
        """The class of each video: its letter and its direction; or ``STILL``."""
        return [self._recognised(video) for video in images]

    def _recognised(self, video: Pixels) -> int:
        middles = path(video)
        way = middles[-1] - middles[0]
        if np.abs(way).max() < _LEAST * video.shape[1]:
            return STILL
        letter = self.network.logits(self._seen(video, middles)).mean(axis=0).argmax()
        return int(letter * len(self.directions) + (self.directions @ way).argmax())

    def _seen(self, video: Pixels, middles: npt.NDArray[np.float64]) -> Pixels:
        """The letter in each frame at the recogniser's size."""
        side = round(_SEEN * video.shape[1])
        corners = np.rint(middles - side / 2).astype(int) + side
        padded = np.pad(video, ((0, 0), (side, side), (side, side), (0, 0)), mode="edge")
        corners = corners.clip(0, padded.shape[1] - side)
        pairs = zip(padded, corners, strict=True)
        cut = np.stack([frame[row : row + side, column : column + side] for frame, (column, row) in pairs])
        size = (self.network.config.size,) * 2
        small = interpolate(torch.from_numpy(cut).movedim(-1, 1).float(), size=size, mode="bilinear", antialias=True)
        return small.round().clamp(0, 255).byte().movedim(1, -1).numpy()


def path(video: Pixels) -> npt.NDArray[np.float64]:
    """Where what moves is in each frame, uint8 (T, H, W, 3): columns and rows in pixels, (T, 2).

    Its middle in each pair of frames is that of the changes from one to the other; a straight line goes through them,
    weighted by how much changes. The middle of the picture where nothing does.
    """
    count, height, width = video.shape[:3]
    changes = np.abs(np.diff(video.astype(np.float64), axis=0)).sum(axis=-1)
    changes = np.clip(changes - _NOISE, 0, None)
    weights = changes.sum(axis=(1, 2))
    if not weights.any():
        return np.tile([width / 2, height / 2], (count, 1))
    columns = changes.sum(axis=1) @ (np.arange(width) + 0.5)
    rows = changes.sum(axis=2) @ (np.arange(height) + 0.5)
    moved = weights > 0
    middles = np.stack([columns, rows], axis=1)[moved] / weights[moved, None]
    moments = np.arange(count - 1)[moved] + 0.5
    if len(moments) == 1:
        return np.tile(middles[0], (count, 1))
    line = np.polyfit(moments, middles, 1, w=np.sqrt(weights[moved]))
    return line[0] * np.arange(count)[:, None] + line[1]
