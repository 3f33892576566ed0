"""Data sets as distributed, images and their annotations: COCO 2017 and Oxford-IIIT Pets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bigain.data.dataset import ImageCollection, Item
from bigain.data.files import inside, read_lines, read_text, require_folder
from bigain.data.prompts import PET

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
