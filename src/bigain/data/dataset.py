"""What a data set is: items in a fixed order, with classes and prompts, and a policy for bad images."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

from bigain.data.prompts import PHOTO, from_template, map_classes
from bigain.images import BadImageError, Pixels, read_image
from bigain.videos import read_video

IMAGENET_CLASSES = 1000
OnBadImage = Literal["raise", "skip"]


class BadImageWarning(UserWarning):
    """An image was skipped because it cannot be decoded."""


@dataclass(frozen=True, eq=False)
class Item:
    """One image and what is known of it before it is decoded."""

    id: str  # unique, seeds the diffusion classifier's noise; stable under limit, the order and the place on disk
    pixels: Callable[[], Pixels]  # decodes the image; raises BadImageError where there is none
    labels: tuple[int, ...] = ()  # class indices: one for class data, any number (also none) for multi-label data
    caption: str | None = None  # a sentence about the image, where the data set has one
    path: Path | None = None  # the file, where it is one

    @classmethod
    def of_file(cls, id: str, path: Path, labels: tuple[int, ...], caption: str | None = None, line: str = "") -> Item:
        """The image in a file; errors also name the ``line`` that lists it."""
        return cls(id, partial(read_image, path, f"{path} ({line})" if line else str(path)), labels, caption, path)

    def as_video(self, frames: int) -> Item:
        """The same with the frames of the animation in its file; what is in no file stays as it is."""
        return self if self.path is None else replace(self, pixels=partial(read_video, self.path, frames))

    @cached_property
    def image(self) -> Pixels:
        """uint8 (H, W, 3), RGB, upright, at its own size; decoded at the first use and kept. Videos (T, H, W, 3)."""
        return self.pixels()


@dataclass(frozen=True, eq=False)
class ImageCollection:
    """Images with classes and prompts, in a fixed order.

    Nothing is decoded before ``collection[index]`` or ``collection.items(...)``, which treats an image that cannot be
    decoded as ``on_bad_image`` says: ``"raise"`` (``BadImageError``) or ``"skip"`` (a ``BadImageWarning`` that names
    it, and its id in ``skipped``).

    Raises:
        ValueError: no image, two images of one id, a label out of range, not one label per image, or an unknown policy.
    """

    name: str
    classes: tuple[str, ...]  # names, which labels index; empty for data without classes
    entries: tuple[Item, ...]  # in serving order, not decoded
    prompts: tuple[tuple[str, ...], ...] | None = None  # one or more per class; None: from the template, if any class
    template: str = PHOTO  # a prompt with {} for the class name
    multi_label: bool = False  # an image may have any number of labels; otherwise one each (none without classes)
    wnids: tuple[str, ...] | None = None  # of the classes, where the data set has them (ImageNet)
    imagenet_labels: tuple[int, ...] | None = None  # of each class, among ImageNet's 1,000 sorted wnids, where known
    on_bad_image: OnBadImage = "raise"
    _skipped: dict[str, None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.on_bad_image not in get_args(OnBadImage):
            raise ValueError(f"on_bad_image must be one of {get_args(OnBadImage)}, not {self.on_bad_image!r}")
        if not self.entries:
            raise ValueError(f"{self.name} must have at least one image, not none")
        identity, times = Counter(entry.id for entry in self.entries).most_common(1)[0]
        if times > 1:
            raise ValueError(f"the ids of {self.name} must differ, not {identity!r} for {times} images")
        for entry in self.entries:
            self._check_labels(entry)
        if self.prompts is None and self.classes:
            object.__setattr__(self, "prompts", from_template(self.classes, self.template))

    def _check_labels(self, entry: Item) -> None:
        count = len(self.classes)
        for label in entry.labels:
            if not 0 <= label < count:
                raise ValueError(f"the label of {entry.id!r} in {self.name} must lie in [0, {count}), not {label}")
        expected = min(1, count)
        if not self.multi_label and len(entry.labels) != expected:
            raise ValueError(f"{entry.id!r} in {self.name} must have {expected} labels, not {len(entry.labels)}")

    def in_turns(self) -> ImageCollection:
        """The same in serving order, of which every ``limit`` is a prefix.

        In class data the classes take turns, so that any prefix is as balanced as the data allow; a class that has run
        out is passed over. Multi-label data and data without classes keep their order.
        """
        if self.multi_label or not self.classes:
            return self
        order = round_robin([entry.labels[0] for entry in self.entries])
        return replace(self, entries=tuple(self.entries[position] for position in order))

    def __len__(self) -> int:
        """How many images are listed, those that turn out to be bad included."""
        return len(self.entries)

    def __getitem__(self, index: int) -> Item:
        """One image, decoded.

        Raises IndexError outside of [0, len), and BadImageError where it cannot be decoded, whatever ``on_bad_image``
        says.
        """
        if not 0 <= index < len(self.entries):
            raise IndexError(f"index must lie in [0, {len(self.entries)}), not {index}")
        item = replace(self.entries[index])  # a copy, so that the pixels live as long as their user
        _ = item.image
        return item

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

    def labels_in(self, model_labels: Mapping[str, int], count: int) -> tuple[int, ...]:
        """The label under which a class-conditional model knows each class.

        By wnid where both sides have them, else by name (``map_classes``). A model without names, ``model_labels``
        being empty, is asked by number: a class must then be called "0", "1", ..., or the data have exactly as many
        classes as the model has labels (``count``), which then stand in one order, as in sorted class folders.
        Otherwise a ValueError says how to give the mapping.
        """
        if count == IMAGENET_CLASSES and self.imagenet_labels is not None:
            return self.imagenet_labels
        if not model_labels and len(self.classes) == count:
            return tuple(range(count))
        if not model_labels and self.wnids is not None:
            raise ValueError(
                f"{self.name} must have a LOC_synset_mapping.txt of all 1,000 classes for a model whose labels have no "
                f"names, not {len(self.classes)} wnids only"
            )
        names = model_labels or {str(label): label for label in range(count)}
        return map_classes(self.classes, names, self.wnids)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The ids of the images that ``items`` has skipped so far, each once."""
        return tuple(self._skipped)


def labelled(data: ImageCollection, count: int) -> list[int]:
    """The positions in ``data`` of its first ``count`` images that have a label; a ValueError where there are fewer."""
    positions = [position for position, entry in enumerate(data.entries) if entry.labels]
    if not 0 <= count <= len(positions):
        raise ValueError(
            f"the number of images must lie in [0, {len(positions)}], as many as {data.name} has with a label, "
            f"not {count}"
        )
    return positions[:count]


def round_robin(labels: Sequence[int]) -> list[int]:
    """Positions in ``labels``, reordered so that the labels take turns, in ascending order in each round."""
    seen: Counter[int] = Counter()
    turns = []
    for position, label in enumerate(labels):
        turns.append((seen[label], label, position))
        seen[label] += 1
    return [position for _, _, position in sorted(turns)]
