"""The data set that ``load`` returns: lazy, in a fixed order, with its policy for bad images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from bigain.data.item import Entry, Item
from bigain.data.reading import BadImageError

OnBadImage = Literal["raise", "skip"]


class BadImageWarning(UserWarning):
    """An image was skipped because it cannot be decoded."""


@dataclass(frozen=True, eq=False)
class ImageCollection:
    """Images with classes and prompts; an ``ImageData``.

    Nothing is decoded before ``collection[index]`` or ``collection.items(...)``: ids, labels and captions are in
    ``entries`` already.

    Attributes:
        name, classes, multi_label, condition_labels: as in ``Catalogue``.
        prompts: at least one per class; ``None`` for data without classes.
        entries: id, labels and caption of every image, in serving order.
        on_bad_image: what ``items`` does with an image that cannot be decoded: ``"raise"`` (``BadImageError``) or
            ``"skip"`` (a ``BadImageWarning`` that names it, and its id in ``skipped``).
    """

    name: str
    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...] | None
    entries: tuple[Entry, ...]
    multi_label: bool = False
    condition_labels: tuple[int, ...] | None = None
    on_bad_image: OnBadImage = "raise"
    _skipped: dict[str, None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.on_bad_image not in get_args(OnBadImage):
            raise ValueError(f"on_bad_image must be one of {get_args(OnBadImage)}, not {self.on_bad_image!r}")

    def __len__(self) -> int:
        """How many images are listed, those that turn out to be bad included."""
        return len(self.entries)

    def __getitem__(self, index: int) -> Item:
        """Decodes one image.

        Raises:
            IndexError: index not in [0, len).
            BadImageError: the image cannot be decoded, whatever ``on_bad_image`` says: an index has no other item
                to give. ``items`` can skip.
        """
        if not 0 <= index < len(self.entries):
            raise IndexError(f"index must lie in [0, {len(self.entries)}), not {index}")
        return self.entries[index].item()

    def __iter__(self) -> Iterator[Item]:
        return self.items()

    def items(self, indices: Iterable[int] | None = None) -> Iterator[Item]:
        """Decodes the images of ``indices`` (default: all) one by one, treating bad ones as ``on_bad_image`` says."""
        for index in range(len(self)) if indices is None else indices:
            try:
                item = self[index]
            except BadImageError as error:
                if self.on_bad_image == "raise":
                    raise
                identity = self.entries[index].id
                if identity not in self._skipped:
                    self._skipped[identity] = None
                    warnings.warn(f"skipped image {len(self._skipped)}: {error}", BadImageWarning, stacklevel=2)
                continue
            yield item

    @property
    def skipped(self) -> tuple[str, ...]:
        """The ids of the images that ``items`` has skipped so far, each once."""
        return tuple(self._skipped)
