"""A user's own images: a folder with one folder per class, or a csv file that lists them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bigain.data.dataset import ImageCollection, Item
from bigain.data.files import folders, inside, read_lines, read_rows, require_folder
from bigain.images import image_files

LAYOUT = "<folder>/<class>/*.png (or .jpg, ...), one folder per class"


def folder(root: Path, split: str | None = None, classes: Path | None = None) -> ImageCollection:
    """Classes are the folders in ``root`` (in ``root/split`` with a split), sorted by name.

    Files beside the class folders, folders in them, hidden files and files whose name does not end like an image's are
    left out. ``classes`` is a text file that restricts the data to the folders it names, one per line.
    """
    base = require_folder(root if split is None else root / split, LAYOUT)
    paths = {path.name: path for path in folders(base)}
    if not paths:
        raise ValueError(f"{base} must have a class folder, not none. Expected layout: {LAYOUT}")
    names = list(paths)
    if classes is not None:
        names = restrict(names, [name for _, name in read_lines(classes, "one class per line")], classes, base)
    entries = [entry for label, name in enumerate(names) for entry in class_entries(paths[name], label, LAYOUT)]
    return ImageCollection(root.resolve().name, tuple(names), tuple(entries))


def class_entries(path: Path, label: int, layout: str) -> list[Item]:
    """The images of one class folder, ids ``<class>/<file name>``; ``ValueError`` if there are none."""
    files = image_files(path)
    if not files:
        raise ValueError(f"the class folder {path} must have an image, not none. Expected layout: {layout}")
    return [Item.of_file(f"{path.name}/{file.name}", file, (label,)) for file in files]


def restrict(classes: Iterable[str], names: Sequence[str], source: Path, base: Path) -> list[str]:
    """The part of ``classes``, which are in ``base``, that ``names`` from the file ``source`` lists; in their order."""
    present = dict.fromkeys(classes)
    if not names:
        raise ValueError(f"{source} must name a class, not none. Expected layout: one class per line")
    for name in names:
        if name not in present:
            raise ValueError(f"{source} must name classes that are in {base}, not {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"{source} must name the class {name!r} once, not {names.count(name)} times")
    return [name for name in present if name in names]


def table(source: Path, class_count: int | None = None) -> ImageCollection:
    """A csv file with the columns ``path`` and ``label``, optionally ``caption``; ids are the paths.

    Paths are relative to the file. Labels are class names, or class indices where all of them are integers, below
    ``class_count`` where a prompt csv tells it.
    """
    rows = list(read_rows(source, ("path", "label"), ("caption",)))
    classes, labels = class_indices([label for _, (_, label, _) in rows], class_count, [where for where, _ in rows])
    entries = []
    for (where, (text, _, caption)), label in zip(rows, labels, strict=True):
        entries.append(Item.of_file(text, inside(source.parent, text, where), (label,), caption or None, where))
    return ImageCollection(source.stem, classes, tuple(sorted(entries, key=lambda entry: entry.id)))


def class_indices(
    labels: Sequence[str | int], count: int | None, sources: Sequence[str]
) -> tuple[tuple[str, ...], list[int]]:
    """Class names, and the class index of each label; ``sources`` says where each was read, for errors.

    Where all labels are integers (also as text) they are the class indices, and their names are their digits: below
    ``count`` where a prompt csv tells it, else from 0 without a gap. Otherwise labels are names, and the classes are
    those names, sorted.
    """
    texts = [str(label) for label in labels]
    if not all(text.isascii() and text.removeprefix("-").isdigit() for text in texts):
        names = sorted(set(texts))
        index = {name: position for position, name in enumerate(names)}
        return tuple(names), [index[text] for text in texts]
    indices = [int(text) for text in texts]
    for value, source in zip(indices, sources, strict=True):
        if value < 0 or (count is not None and value >= count):
            limits = "at least 0" if count is None else f"in [0, {count}), the classes of the prompt csv"
            raise ValueError(f"{source}: the label must be {limits}, not {value}")
    present = set(indices)
    missing = next((value for value in range(len(present)) if value not in present), None)
    if count is None and missing is not None:
        raise ValueError(
            f"{sources[indices.index(max(indices))]}: integer labels must count from 0 without a gap, not reach "
            f"{max(indices)} without {missing}. A prompt csv can name classes that have no image"
        )
    return tuple(str(value) for value in range(len(present) if count is None else count)), indices
