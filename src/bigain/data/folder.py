"""Any folder with one folder per class."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bigain.data.catalogue import Catalogue
from bigain.data.item import Entry
from bigain.data.paths import folders, image_files, read_lines, require_folder
from bigain.data.reading import read_image

LAYOUT = "<folder>/<class>/*.png (or .jpg, ...), one folder per class"


def folder(root: Path, split: str | None = None, classes: Path | None = None) -> Catalogue:
    """Classes are the folders in ``root`` (in ``root/split`` with a split), sorted by name.

    Files beside the class folders, folders in them, hidden files and files whose name does not end like an
    image's are left out. Ids are ``<class>/<file name>``.

    Args:
        classes: a text file that restricts the data to the folders it names, one per line.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no class folder, a class folder without images, or a class in the text file that is not there.
    """
    base = require_folder(root if split is None else root / split, LAYOUT)
    found = {path.name: path for path in folders(base)}
    if not found:
        raise ValueError(f"{base} has no class folder. Expected layout: {LAYOUT}")
    if classes is not None:
        found = restrict(found, [name for _, name in read_lines(classes, "one class per line")], classes, base)
    entries: list[Entry] = []
    for label, (name, path) in enumerate(found.items()):
        entries += class_entries(path, name, label, LAYOUT)
    return Catalogue(root.resolve().name, tuple(found), tuple(entries), condition_labels=tuple(range(len(found))))


def class_entries(path: Path, name: str, label: int, layout: str) -> list[Entry]:
    """The images of one class folder; ``ValueError`` if there are none."""
    files = image_files(path)
    if not files:
        raise ValueError(f"the class folder {path} has no image. Expected layout: {layout}")
    return [Entry(f"{name}/{file.name}", partial(read_image, file, str(file)), (label,)) for file in files]


def restrict(found: dict[str, Path], names: list[str], source: Path, base: Path) -> dict[str, Path]:
    """The part of ``found`` that ``names`` lists, in the order of ``found``.

    Raises:
        ValueError: no name, a name that is listed twice, or that was not found.
    """
    if not names:
        raise ValueError(f"{source} names no class. Expected layout: one class per line")
    for name in names:
        if name not in found:
            raise ValueError(f"{source} names the class {name!r}, which is not in {base}")
        if names.count(name) > 1:
            raise ValueError(f"{source} names the class {name!r} {names.count(name)} times")
    return {name: path for name, path in found.items() if name in names}
