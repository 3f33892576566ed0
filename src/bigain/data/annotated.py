"""Data sets as distributed, images and their annotations: ImageNet-1K, COCO 2017 and Oxford-IIIT Pets."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bigain.data.dataset import IMAGENET_CLASSES, ImageCollection, Item
from bigain.data.files import folders, inside, read_lines, read_rows, read_text, require_folder
from bigain.data.folder import class_entries, restrict
from bigain.data.prompts import PET

MAPPING = "LOC_synset_mapping.txt"
SOLUTION = "LOC_val_solution.csv"
IMAGENET_LAYOUT = (
    f"<split>/<wnid>/*.JPEG, or Kaggle's <split>/*.JPEG with {SOLUTION} (split val only); either below the root or "
    f"below ILSVRC/Data/CLS-LOC; and {MAPPING} with lines 'n01440764 tench, Tinca tinca'"
)

_WNID = re.compile(r"n[0-9]{8}")


def imagenet(
    root: Path, split: str = "val", classes: Path | None = None, named: bool = True, name: str = "imagenet"
) -> ImageCollection:
    """ImageNet-1K (Russakovsky et al., IJCV 2015), as a tree of one folder per wnid or in Kaggle's flat layout.

    Classes are sorted by wnid: the folders that are there, or those of the mapping. Ids are ``<wnid>/<file name>``.

    Args:
        classes: a text file that restricts the data to the wnids it lists, one per line, optionally followed by a
            class name, which then overrides the mapping's (ImageNet-100: 100 lines).
        named: whether class names are needed; without, the wnid stands in where a class has none.
    """
    require_folder(root, IMAGENET_LAYOUT)
    places = (root / split, root / "ILSVRC" / "Data" / "CLS-LOC" / split)
    base = require_folder(next(filter(Path.is_dir, places), places[0]), IMAGENET_LAYOUT)
    tree = {path.name: path for path in folders(base) if _WNID.fullmatch(path.name)}
    flat = not tree and split == "val" and (root / SOLUTION).exists()
    if not tree and not flat:
        raise ValueError(
            f"{base} must have folders named by wnids, or {root} a {SOLUTION}, not neither. Expected layout: "
            f"{IMAGENET_LAYOUT}"
        )
    mapping = read_synsets(root / MAPPING) if flat or (root / MAPPING).exists() else {}
    chosen = {} if classes is None else read_synsets(classes)
    wnids = sorted(restrict(tree or mapping, list(chosen), classes, base) if classes else tree or mapping)
    if tree:
        entries = [entry for i, wnid in enumerate(wnids) for entry in class_entries(tree[wnid], i, IMAGENET_LAYOUT)]
    else:
        entries = _imagenet_flat(base, root / SOLUTION, mapping, wnids)
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


def _imagenet_flat(base: Path, solution: Path, mapping: dict[str, str], wnids: list[str]) -> list[Item]:
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
        raise ValueError(
            f"{solution} must list an image of the chosen classes, not none. Expected layout: {IMAGENET_LAYOUT}"
        )
    return [Item.of_file(identity, path, (index,)) for index, identity, path in sorted(rows)]


def _imagenet_labels(wnids: list[str], *listings: Iterable[str]) -> tuple[int, ...] | None:
    """The index of each wnid among the 1,000 sorted ones, by which ImageNet models know their classes.

    One of the listings of wnids may be the thousand; None where none is.
    """
    for every in map(sorted, listings):
        if len(every) == IMAGENET_CLASSES and set(wnids) <= set(every):
            return tuple(map(every.index, wnids))
    return None


COCO_LAYOUT = "<split>/*.jpg, annotations/instances_<split>.json and annotations/captions_<split>.json"


def coco(root: Path, split: str = "val2017") -> ImageCollection:
    """COCO 2017 (Lin et al., ECCV 2014), multi-label: the categories of an image's objects, and its first caption.

    Classes are the categories by ascending id (80 in COCO 2017). Images are sorted by file name; ids are the file
    names without their suffix, like ``000000000139``. Images without an object (48 of the 5,000 in val2017) are kept,
    with no label: they have captions, and count for generation.
    """
    require_folder(root, COCO_LAYOUT)
    images = require_folder(root / split, COCO_LAYOUT)
    source = root / "annotations" / f"instances_{split}.json"
    instances = _document(source)
    categories = sorted(_records(instances, "categories", {"id": int, "name": str}, source), key=lambda c: c["id"])
    listed = _records(instances, "images", {"id": int, "file_name": str}, source)
    for key, records in (("categories", categories), ("images", listed)):
        if len({record["id"] for record in records}) < len(records):
            raise ValueError(f"{source}: the ids of its {key} must differ, not repeat")
    label = {category["id"]: index for index, category in enumerate(categories)}
    paths = {record["id"]: inside(images, record["file_name"], str(source)) for record in listed}
    labels: dict[int, set[int]] = {identity: set() for identity in paths}
    for record in _records(instances, "annotations", {"image_id": int, "category_id": int}, source):
        if record["image_id"] not in paths:
            raise ValueError(f"{source}: an annotation must refer to a listed image, not {record['image_id']}")
        if record["category_id"] not in label:
            raise ValueError(f"{source}: an annotation must refer to a listed category, not {record['category_id']}")
        labels[record["image_id"]].add(label[record["category_id"]])
    captions = _first_captions(root / "annotations" / f"captions_{split}.json")
    entries = []
    for identity, path in paths.items():
        name = path.relative_to(images).with_suffix("").as_posix()
        entries.append(Item.of_file(name, path, tuple(sorted(labels[identity])), captions.get(identity)))
    entries.sort(key=lambda entry: entry.id)
    return ImageCollection("coco", tuple(c["name"] for c in categories), tuple(entries), multi_label=True)


def _first_captions(source: Path) -> dict[int, str]:
    records = _records(_document(source), "annotations", {"image_id": int, "caption": str}, source)
    return {record["image_id"]: record["caption"].strip() for record in reversed(records)}


def _document(source: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(source, COCO_LAYOUT))
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} must be json: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{source} must hold a json object, not a {type(document).__name__}")
    return document


def _records(document: dict[str, Any], key: str, fields: dict[str, type], source: Path) -> list[dict[str, Any]]:
    """The list ``document[key]``, every record of which has ``fields`` of the given types."""
    records = document.get(key)
    if not isinstance(records, list):
        raise ValueError(f"{source} must have a list {key!r}, not {type(records).__name__}")
    for position, record in enumerate(records):
        for name, kind in fields.items():
            if not isinstance(record, dict) or not isinstance(record.get(name), kind):
                raise ValueError(
                    f"{source}: {key}[{position}] must have {name!r} of type {kind.__name__}, not {record}"
                )
    return records


PETS_LAYOUT = (
    "images/<Breed>_<number>.jpg and annotations/<split>.txt with lines '<Breed>_<number> CLASS-ID SPECIES BREED-ID'"
)

_LINE = re.compile(r"(?P<image>\S+) (?P<class_id>[0-9]{1,9})( [0-9]+){0,2}")


def pets(root: Path, split: str = "test") -> ImageCollection:
    """Oxford-IIIT Pets (Parkhi et al., CVPR 2012): classes by the annotations' class ids.

    Ids are the images' names, like ``Abyssinian_201``. Splits are ``"test"`` (3,669 images) and ``"trainval"``.
    """
    require_folder(root, PETS_LAYOUT)
    images = require_folder(root / "images", PETS_LAYOUT)
    source = root / "annotations" / f"{split}.txt"
    rows: list[tuple[str, int, Path]] = []
    breeds: dict[int, str] = {}
    for number, line in read_lines(source, PETS_LAYOUT):
        where = f"{source}, line {number}"
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{where}: a line must fit the layout, not be {line!r}. Expected layout: {PETS_LAYOUT}")
        name, class_id = match["image"], int(match["class_id"])
        path = inside(images, f"{name}.jpg", where)
        breed = path.stem.rpartition("_")[0].replace("_", " ")
        if not breed:
            raise ValueError(f"{where}: the name must hold a breed, not be {name!r}. Expected layout: {PETS_LAYOUT}")
        if breeds.setdefault(class_id, breed) != breed:
            raise ValueError(
                f"{where}: the breed of class {class_id} must be {breeds[class_id]!r} as above, not {breed!r}"
            )
        rows.append((name, class_id - 1, path))
    if not rows:
        raise ValueError(f"{source} must list an image, not none. Expected layout: {PETS_LAYOUT}")
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise ValueError(f"{source}: class ids must count from 1 without a gap, not {sorted(breeds)}")
    entries = tuple(Item.of_file(name, path, (label,)) for name, label, path in sorted(rows))
    return ImageCollection("pets", tuple(breeds[class_id] for class_id in sorted(breeds)), entries, template=PET)
