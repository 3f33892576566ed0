"""The contents of a data set before any image is decoded, in the order in which it is served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bigain.data.item import Entry
from bigain.data.prompts import PHOTO


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What a layout's reader found on disk.

    Attributes:
        name: of the data set.
        classes: class names; labels index them. Empty for data without classes.
        entries: the images, sorted by id within each class.
        template: a prompt with ``{}`` for the class name.
        multi_label: an image may have any number of labels; otherwise one each (none without classes).
        condition_labels: for each class, the label under which a class-conditional model knows it: the index
            of the class itself, save for ImageNet, where it is the index among the 1,000 classes; ``None`` if
            that cannot be told.

    Raises:
        ValueError: no image, two images of one id, a label out of range, or not one label per image.
    """

    name: str
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    template: str = PHOTO
    multi_label: bool = False
    condition_labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.entries:
            raise ValueError(f"{self.name}: no image")
        identity, times = Counter(entry.id for entry in self.entries).most_common(1)[0]
        if times > 1:
            raise ValueError(f"{self.name}: {times} images have the id {identity!r}")
        expected = 1 if self.classes else 0
        for entry in self.entries:
            for label in entry.labels:
                if not 0 <= label < len(self.classes):
                    raise ValueError(
                        f"{self.name}: the label of {entry.id!r} must lie in [0, {len(self.classes)}), not {label}"
                    )
            if not self.multi_label and len(entry.labels) != expected:
                raise ValueError(f"{self.name}: {entry.id!r} has {len(entry.labels)} labels, not {expected}")

    def ordered(self) -> tuple[Entry, ...]:
        """The entries in serving order, of which every ``limit`` is a prefix.

        Class data: the classes take turns (the first image of each class, then the second of each, ...; a class
        that has run out is passed over), so any prefix is as balanced as the data allow. Multi-label data and
        data without classes: as they are.
        """
        if self.multi_label or not self.classes:
            return self.entries
        return tuple(self.entries[position] for position in round_robin([entry.labels[0] for entry in self.entries]))


def round_robin(labels: Sequence[int]) -> list[int]:
    """Positions in ``labels``, reordered so that the labels take turns, in ascending order in each round."""
    seen: Counter[int] = Counter()
    turns = []
    for position, label in enumerate(labels):
        turns.append((seen[label], label, position))
        seen[label] += 1
    return [position for _, _, position in sorted(turns)]
