"""The networks whose features FID and KID compare, and the recogniser of glyphs among them."""

from __future__ import annotations

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bigain import zoo
from bigain.images import Pixels

Features = npt.NDArray[np.float32]  # (N, D)


class FeatureNetwork(ABC):
    """Gives features of images; recognises them where it can."""

    name: str
    """Says which features they are, and of which images; values of different ones do not compare."""

    @abstractmethod
    def features(self, images: Pixels) -> Features:
        """Of uint8 (N, H, W, 3): float32 (N, D)."""

    def recognise(self, images: Pixels) -> Sequence[int | None]:
        """The class that each image shows, None where the network knows no classes."""
        return [None] * len(images)


class GlyphFeatures(FeatureNetwork):
    """The embedded recogniser; larger images are averaged down to its size first.

    Args:
        image_size: height and width of the images: a multiple of the recogniser's (of twice that, for quadrants).
        quadrants: for scenes of several letters: the recogniser sees each quadrant alone and its features are averaged
            over the four. It then recognises nothing, as there is no one letter to see.
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
        resized = f", {self.times}x{self.times} pixels averaged" if self.times > 1 else ""
        self.name = f"glyphs-recogniser{resized}{', mean of the four quadrants' if quadrants else ''}"

    def features(self, images: Pixels) -> Features:
        """Of uint8 (N, H, W, 3): float32 (N, D)."""
        images = self._resized(images)
        if not self.quadrants:
            return self.network.features(images).astype(np.float32)
        half = self.network.config.size
        parts = [images[:, top:, left:][:, :half, :half] for top in (0, half) for left in (0, half)]
        return np.mean([self.network.features(part) for part in parts], axis=0).astype(np.float32)

    def recognise(self, images: Pixels) -> Sequence[int | None]:
        """The letter of each image as its index in the glyphs' classes; None for scenes."""
        if self.quadrants:
            return super().recognise(images)
        return [int(label) for label in self.network.predict(self._resized(images))]

    def _resized(self, images: Pixels) -> Pixels:
        if self.times == 1:
            return images
        count, height, width, channels = images.shape
        blocks = images.reshape(count, height // self.times, self.times, width // self.times, self.times, channels)
        return np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)


class InceptionFeatures(FeatureNetwork):
    """Inception v3 by torchmetrics and torch-fidelity: 2048 features, resized to 299 pixels by the network."""

    name = "inception-v3-compat"

    def __init__(self, device: torch.device) -> None:
        if importlib.util.find_spec("torch_fidelity") is None:
            raise ModuleNotFoundError(
                "torch-fidelity must be installed for features='inception' (pip install torch-fidelity), not missing; "
                "--features none leaves FID, KID, precision and recall out"
            )
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.network: nn.Module = NoTrainInceptionV3(self.name, ["2048"]).to(device)

    def features(self, images: Pixels) -> Features:
        """Of uint8 (N, H, W, 3): float32 (N, 2048)."""
        return extract(images, self.network).astype(np.float32)


def extract(images: np.ndarray, network: nn.Module, batch_size: int = 64) -> np.ndarray:
    """Features of images uint8 (N, H, W, 3), N >= 1, by a network in evaluation mode: float64 (N, D).

    The network maps uint8 (B, 3, H, W) to (B, D), on the device of its first parameter (the CPU if it has none).
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise ValueError(f"images must be uint8 (N >= 1, H, W, 3), not {images.dtype} {images.shape}")
    if network.training:
        raise ValueError(f"{type(network).__name__} must be in evaluation mode (eval()), not in training mode")
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.array(images[start : start + batch_size]))  # a copy: read-only memory
            rows.append(network(batch.permute(0, 3, 1, 2).to(device)).double().cpu().numpy())
    return np.concatenate(rows)


@dataclass(frozen=True)
class RecogniserConfig:
    """The shape of a recogniser."""

    classes: tuple[str, ...]  # name of each class, in the order of the labels
    size: int = 32  # height and width of the images in pixels, a multiple of 8
    widths: tuple[int, int, int, int] = (32, 64, 96, 128)  # channels of four stages; 2 to 4 halve the resolution
    features: int = 64  # dimensions of the pooled penultimate layer

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"classes must name at least 2, not {self.classes!r}")
        if self.size < 8 or self.size % 8:
            raise ValueError(f"size must be a positive multiple of 8 pixels, not {self.size}")
        if len(self.widths) != 4 or min(self.widths) < 1:
            raise ValueError(f"widths must be 4 positive channel counts, not {self.widths!r}")
        if self.features < 1:
            raise ValueError(f"features must be at least 1, not {self.features}")


class Recogniser(nn.Module):
    """Four convolutional stages, a pooled feature vector, a linear classifier.

    As a module it is a feature network as torchmetrics takes them: uint8 images (B, 3, S, S) to features (B, D).
    """

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__()
        first, second, third, fourth = config.widths
        widths = (3, first, second, third, third, fourth, config.features)
        self.config = config
        self.num_features = config.features
        self.stages = nn.Sequential(*map(_convolution, widths, widths[1:], (1, 2, 2, 1, 2, 1)))
        self.head = nn.Linear(config.features, len(config.classes))

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] to features (B, D)."""
        return self.stages(images).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 (B, 3, S, S), S the recogniser's size, to features (B, D)."""
        size = self.config.size
        if images.dtype != torch.uint8 or images.shape[1:] != (3, size, size):
            raise ValueError(f"images must be uint8 (B, 3, {size}, {size}), not {images.dtype} {tuple(images.shape)}")
        return self.embed(images.to(self.head.weight.dtype) / 127.5 - 1)

    def features(self, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Images uint8 (N, S, S, 3), N >= 1, to features float64 (N, D)."""
        return extract(images, self, batch_size)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 (N, S, S, 3), N >= 1, to unnormalised log-probabilities float64 (N, K)."""
        weight, bias = (p.detach().double().cpu().numpy() for p in (self.head.weight, self.head.bias))
        return self.features(images) @ weight.T + bias

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 (N, S, S, 3), N >= 1, to class indices int64 (N,)."""
        return self.logits(images).argmax(axis=1)


def _convolution(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )


def load_recogniser(folder: Path | None = None) -> Recogniser:
    """The embedded recogniser, or one of the same format from ``folder``; on the CPU, frozen, in evaluation mode.

    The folder holds ``config.json`` and ``model.safetensors``; a FileNotFoundError names what is missing.
    """
    folder = zoo.path("glyphs-recogniser") if folder is None else folder
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"the recogniser in {folder} must have {name}, not lack it")
    architecture = json.loads((folder / "config.json").read_text())["architecture"]
    lists = {name: tuple(architecture[name]) for name in ("classes", "widths")}
    model = Recogniser(RecogniserConfig(**architecture | lists))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval().requires_grad_(False)
