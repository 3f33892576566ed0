"""ImageNet-1K (Russakovsky et al., IJCV 2015): a tree of one folder per wnid, or Kaggle's flat layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bigain.data.dataset import IMAGENET_CLASSES, ImageCollection, Item
from bigain.data.files import folders, inside, read_lines, read_rows, require_folder
from bigain.data.folder import class_entries, restrict

MAPPING = "LOC_synset_mapping.txt"
SOLUTION = "LOC_val_solution.csv"
LAYOUT = (
    f"<split>/<wnid>/*.JPEG, or Kaggle's <split>/*.JPEG with {SOLUTION} (split val only); either below the root or "
    f"below ILSVRC/Data/CLS-LOC; and {MAPPING} with lines 'n01440764 tench, Tinca tinca'"
)

_WNID = re.compile(r"n[0-9]{8}")


def imagenet(
    root: Path, split: str = "val", classes: Path | None = None, named: bool = True, name: str = "imagenet"
) -> ImageCollection:
    """Classes are sorted by wnid; ids are ``<wnid>/<file name>`` in both layouts.

    Tree: the classes are the folders that are there. Flat: those of the mapping.

    Args:
        classes: a text file that restricts the data to the wnids it lists, one per line, optionally followed by a
            class name, which then overrides the mapping's (ImageNet-100: 100 lines).
        named: whether class names are needed; without, the wnid stands in where a class has none.
    """
    require_folder(root, LAYOUT)
    places = (root / split, root / "ILSVRC" / "Data" / "CLS-LOC" / split)
    base = require_folder(next(filter(Path.is_dir, places), places[0]), LAYOUT)
    tree = {path.name: path for path in folders(base) if _WNID.fullmatch(path.name)}
    flat = not tree and split == "val" and (root / SOLUTION).exists()
    if not tree and not flat:
        raise ValueError(
            f"{base} must have folders named by wnids, or {root} a {SOLUTION}, not neither. Expected layout: {LAYOUT}"
        )
    mapping = read_synsets(root / MAPPING) if flat or (root / MAPPING).exists() else {}
    chosen = {} if classes is None else read_synsets(classes)
    wnids = sorted(restrict(tree or mapping, list(chosen), classes, base) if classes else tree or mapping)
    if tree:
        entries = [entry for i, wnid in enumerate(wnids) for entry in class_entries(tree[wnid], i, LAYOUT)]
    else:
        entries = _flat(base, root / SOLUTION, mapping, wnids)
    synonyms = {wnid: chosen.get(wnid) or mapping.get(wnid, "") for wnid in wnids}
    nameless = [wnid for wnid, text in synonyms.items() if not text]
    if named and nameless:
        raise ValueError(
            f"the class {nameless[0]} must have a name, not none: add {root / MAPPING} with lines 'n01440764 tench, "
            "Tinca tinca', write names after the wnids of the class list, or give a prompt csv"
        )
    labels = _imagenet_labels(wnids, mapping, tree)
    return ImageCollection(name, class_names(synonyms), tuple(entries), wnids=tuple(wnids), imagenet_labels=labels)


def read_synsets(path: Path) -> dict[str, str]:
    """Lines of a wnid, then optionally a space and its synonyms: {wnid: "tench, Tinca tinca" or ""}."""
    layout = "lines of a wnid, optionally followed by its name, like 'n01440764 tench, Tinca tinca'"
    synsets: dict[str, str] = {}
    for number, line in read_lines(path, layout):
        wnid, _, text = line.partition(" ")
        if not _WNID.fullmatch(wnid):
            raise ValueError(
                f"{path}, line {number}: a line must start with a wnid (n and 8 digits), not {wnid!r}. Expected "
                f"layout: {layout}"
            )
        if wnid in synsets:
            raise ValueError(f"{path}, line {number}: the wnid {wnid} must come once, not again")
        synsets[wnid] = text.strip()
    if not synsets:
        raise ValueError(f"{path} must list a class, not none. Expected layout: {layout}")
    return synsets


def class_names(synonyms: dict[str, str]) -> tuple[str, ...]:
    """The first synonym of each class; all of them where classes share the first; the wnid where there is none."""
    first = {wnid: text.split(",")[0].strip() or wnid for wnid, text in synonyms.items()}
    uses = Counter(text.casefold() for text in first.values())
    return tuple(synonyms[wnid] if uses[text.casefold()] > 1 else text for wnid, text in first.items())


def _flat(base: Path, solution: Path, mapping: dict[str, str], wnids: list[str]) -> list[Item]:
    """The images that the solution file gives a class among ``wnids``, sorted by class and file name."""
    label = {wnid: index for index, wnid in enumerate(wnids)}
    rows: list[tuple[int, str, Path]] = []
    for where, (image, prediction) in read_rows(solution, ("ImageId", "PredictionString")):
        wnid = prediction.split()[0]  # then its box, then maybe more boxes of the same class
        if wnid not in mapping:
            raise ValueError(f"{where}: the class must be in {MAPPING}, not {wnid!r}")
        if wnid in label:
            path = inside(base, f"{image}.JPEG", where)
            rows.append((label[wnid], f"{wnid}/{path.name}", path))
    if not rows:
        raise ValueError(f"{solution} must list an image of the chosen classes, not none. Expected layout: {LAYOUT}")
    return [Item.of_file(identity, path, (index,)) for index, identity, path in sorted(rows)]


def _imagenet_labels(wnids: list[str], *listings: Iterable[str]) -> tuple[int, ...] | None:
    """The index of each wnid among the 1,000 sorted ones, by which ImageNet models know their classes.

    One of the listings of wnids may be the thousand; None where none is.
    """
    for every in map(sorted, listings):
        if len(every) == IMAGENET_CLASSES and set(wnids) <= set(every):
            return tuple(map(every.index, wnids))
    return None
