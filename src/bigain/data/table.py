"""A csv file that lists images and their labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bigain.data.catalogue import Catalogue
from bigain.data.item import Entry
from bigain.data.labels import class_indices
from bigain.data.paths import inside
from bigain.data.reading import read_image
from bigain.data.rows import read_rows


def table(source: Path, class_count: int | None = None) -> Catalogue:
    """Columns ``path`` and ``label``, optionally ``caption``; ids are the paths, which are relative to the file.

    Labels are class names, or class indices where all of them are integers.

    Args:
        class_count: number of classes, where a prompt csv tells it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, a row that does not fit, a path that leads out of the file's folder, or a
            label out of range.
    """
    rows = list(read_rows(source, ("path", "label"), ("caption",)))
    classes, labels = class_indices([label for _, (_, label, _) in rows], class_count, str(source))
    entries = []
    for (where, (text, _, caption)), label in zip(rows, labels, strict=True):
        path = inside(source.parent, text, where)
        entries.append(Entry(text, partial(read_image, path, str(path)), (label,), caption or None))
    entries.sort(key=lambda entry: entry.id)
    return Catalogue(source.stem, classes, tuple(entries), condition_labels=tuple(range(len(classes))))
