"""The networks whose features FID and KID compare, and who recognises what was generated."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bigain.metrics.distribution import extract
from bigain.metrics.recognise import Recogniser, load_recogniser

Images = npt.NDArray[np.uint8]


class FeatureNetwork(Protocol):
    """Gives features of images; recognises them where it can."""

    @property
    def name(self) -> str: ...

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Of uint8 (N, H, W, 3): float32 (N, D)."""

    def recognise(self, images: Images) -> Sequence[int | None]:
        """The class that each image shows, None where the network knows no classes."""


class GlyphFeatures:
    """The embedded recogniser.

    Raises:
        FileNotFoundError: its weights are missing.
        ValueError: the images are of another size than it knows.
    """

    def __init__(self, image_size: int, device: torch.device) -> None:
        self.network: Recogniser = load_recogniser().to(device)
        if self.network.config.size != image_size:
            raise ValueError(
                f"the recogniser takes images of {self.network.config.size} pixels, the model makes {image_size}: "
                "give features='none' (--features none), which leaves FID, KID and recognition out"
            )

    @property
    def name(self) -> str:
        return self.network.network

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        return self.network.features(images).astype(np.float32)

    def recognise(self, images: Images) -> Sequence[int | None]:
        return [int(label) for label in self.network.predict(images)]


class InceptionFeatures:
    """Inception v3 as torchmetrics and torch-fidelity have it: 2048 features, resized to 299 pixels by the network.

    Raises:
        ModuleNotFoundError: torch-fidelity is not installed.
    """

    name = "inception-v3-compat"

    def __init__(self, device: torch.device) -> None:
        if importlib.util.find_spec("torch_fidelity") is None:
            raise ModuleNotFoundError(
                "features='inception' needs torch-fidelity: pip install torch-fidelity, or give --features none, which "
                "leaves FID and KID out"
            )
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.network: nn.Module = NoTrainInceptionV3("inception-v3-compat", ["2048"]).to(device)

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        return extract(images, self.network).astype(np.float32)

    def recognise(self, images: Images) -> Sequence[int | None]:
        return [None] * len(images)


def feature_network(name: str, image_size: int, device: torch.device) -> FeatureNetwork | None:
    """The network called "recogniser" or "inception"; None for "none"."""
    if name == "none":
        return None
    return GlyphFeatures(image_size, device) if name == "recogniser" else InceptionFeatures(device)
