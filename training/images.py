"""The embedded training images and videos, drawn once by all cores and kept on disk."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigain.data.glyphs import Glyphs
from bigain.data.moving import MovingLetters
from bigain.data.scenes import Scenes


def letters(split: str, size: int, length: int, folder: Path) -> np.ndarray:
    """The first single letters of a split as uint8 (length, size, size, 3)."""
    return _cached(folder / f"glyphs-{split}-{size}-{length}.npy", Glyphs(split, size), length)


def scenes(split: str, size: int, length: int, folder: Path) -> np.ndarray:
    """The first scenes of several letters of a split as uint8 (length, size, size, 3)."""
    return _cached(folder / f"glyphs-scenes-{split}-{size}-{length}.npy", Scenes(split, size), length)


def videos(split: str, size: int, frames: int, length: int, folder: Path) -> np.ndarray:
    """The first moving letters of a split as uint8 (length, frames, size, size, 3)."""
    data = MovingLetters(split, size, frames=frames)
    return _cached(folder / f"glyphs-moving-{split}-{size}-{frames}-{length}.npy", data, length)


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 (B, S, S, 3) as float32 (B, 3, S, S) in [-1, 1]."""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1  # a copy: arrays from a cache cannot be written


def _drawn(data: Glyphs | Scenes | MovingLetters, span: range) -> np.ndarray:
    return np.stack([data.pixels(index) for index in span])


def _cached(path: Path, data: Glyphs | Scenes | MovingLetters, length: int) -> np.ndarray:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        spans = [range(first, min(first + 500, length)) for first in range(0, length, 500)]
        with ProcessPoolExecutor() as pool:
            rows = np.concatenate(list(pool.map(partial(_drawn, data), spans)))
        partial_path = path.with_suffix(".partial.npy")
        np.save(partial_path, rows)
        partial_path.rename(path)
    return np.load(path, mmap_mode="r")
