"""The networks whose features FID and KID compare, and who recognises what was generated."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bigain.metrics.recognise import Recogniser, extract, load_recogniser

Images = npt.NDArray[np.uint8]


class FeatureNetwork(Protocol):
    """Gives features of images; recognises them where it can."""

    @property
    def name(self) -> str:
        """Says which features they are; values of different ones do not compare."""

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Of uint8 (N, H, W, 3): float32 (N, D)."""

    def recognise(self, images: Images) -> Sequence[int | None]:
        """The class that each image shows, None where the network knows no classes."""


class GlyphFeatures:
    """The embedded recogniser; larger images are averaged down to its size first.

    Args:
        image_size: height and width of the images.
        quadrants: for scenes of several letters: the recogniser sees each quadrant alone and its features are averaged
            over the four. It then recognises nothing, as there is no one letter to see.

    Raises:
        FileNotFoundError: its weights are missing.
        ValueError: the images' size is no multiple of the one that it knows (of twice that, for quadrants).
    """

    def __init__(self, image_size: int, device: torch.device, quadrants: bool = False) -> None:
        self.network: Recogniser = load_recogniser().to(device)
        self.quadrants = quadrants
        size = self.network.config.size * (2 if quadrants else 1)
        if image_size % size:
            raise ValueError(
                f"the model's {'scenes' if quadrants else 'images'} must be a multiple of {size} pixels for the "
                f"recogniser, not {image_size}: features='none' (--features none) leaves FID, KID, precision, recall "
                "and recognition out"
            )
        self.times = image_size // size

    @property
    def name(self) -> str:
        """Also says how images are resized."""
        resized = f", {self.times}x{self.times} pixels averaged" if self.times > 1 else ""
        return self.network.network + resized + (", mean of the four quadrants" if self.quadrants else "")

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Of uint8 (N, H, W, 3): float32 (N, D)."""
        images = self._resized(images)
        if not self.quadrants:
            return self.network.features(images).astype(np.float32)
        half = self.network.config.size
        parts = [images[:, top:, left:][:, :half, :half] for top in (0, half) for left in (0, half)]
        return np.mean([self.network.features(part) for part in parts], axis=0).astype(np.float32)

    def recognise(self, images: Images) -> Sequence[int | None]:
        """The letter of each image as its index in the glyphs' classes; None for scenes."""
        if self.quadrants:
            return [None] * len(images)
        return [int(label) for label in self.network.predict(self._resized(images))]

    def _resized(self, images: Images) -> Images:
        if self.times == 1:
            return images
        count, height, width, channels = images.shape
        blocks = images.reshape(count, height // self.times, self.times, width // self.times, self.times, channels)
        return np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)


class InceptionFeatures:
    """Inception v3 as torchmetrics and torch-fidelity have it: 2048 features, resized to 299 pixels by the network.

    Raises:
        ModuleNotFoundError: torch-fidelity is not installed.
    """

    name = "inception-v3-compat"

    def __init__(self, device: torch.device) -> None:
        if importlib.util.find_spec("torch_fidelity") is None:
            raise ModuleNotFoundError(
                "torch-fidelity must be installed for features='inception' (pip install torch-fidelity), not missing; "
                "--features none leaves FID, KID, precision and recall out"
            )
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.network: nn.Module = NoTrainInceptionV3("inception-v3-compat", ["2048"]).to(device)

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Of uint8 (N, H, W, 3): float32 (N, 2048)."""
        return extract(images, self.network).astype(np.float32)

    def recognise(self, images: Images) -> Sequence[int | None]:
        """None for each image: its features know no classes."""
        return [None] * len(images)


def feature_network(name: str, image_size: int, device: torch.device, quadrants: bool = False) -> FeatureNetwork | None:
    """The network called "recogniser" (see `GlyphFeatures` for ``quadrants``) or "inception"; None for "none"."""
    if name == "none":
        return None
    return GlyphFeatures(image_size, device, quadrants) if name == "recogniser" else InceptionFeatures(device)
