"""What a data set hands out: items, and the protocol that every data set follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Item:
    """One decoded image.

    Attributes:
        id: names the image within its data set; stable under ``limit``, the order and the place on disk. The
            noise of the diffusion classifier is seeded from it.
        image: uint8 (H, W, 3), RGB, upright, at its own size.
        labels: class indices. One for class data, any number (also none) for multi-label data.
        caption: a sentence about the image, where the data set has one.
    """

    id: str
    image: Pixels
    labels: tuple[int, ...]
    caption: str | None = None


@dataclass(frozen=True, eq=False)
class Entry:
    """What is known of an image before it is decoded; ``pixels()`` decodes it.

    ``pixels`` raises ``BadImageError`` where there is no image to decode.
    """

    id: str
    pixels: Callable[[], Pixels]
    labels: tuple[int, ...] = ()
    caption: str | None = None

    def item(self) -> Item:
        """Decodes the image."""
        return Item(self.id, self.pixels(), self.labels, self.caption)


class ImageData(Protocol):
    """A sequence of items with the names of their classes and the prompts that describe those."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def prompts(self) -> tuple[tuple[str, ...], ...] | None:
        """At least one prompt per class; ``None`` for data without classes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item: ...
