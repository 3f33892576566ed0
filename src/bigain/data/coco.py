"""COCO 2017 (Lin et al., ECCV 2014) as distributed: a folder of images and two json files."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from bigain.data.dataset import ImageCollection, Item
from bigain.data.files import inside, read_text, require_folder
from bigain.images import read_image

LAYOUT = "<split>/*.jpg, annotations/instances_<split>.json and annotations/captions_<split>.json"


def coco(root: Path, split: str = "val2017") -> ImageCollection:
    """Multi-label: the categories of an image's objects; the caption is its first in the captions file.

    Classes are the categories by ascending id (80 in COCO 2017). Images are sorted by file name; ids are the file
    names without their suffix, like ``000000000139``. Images without an object (48 of the 5,000 in val2017) are
    kept, with no label: they have captions, and count for generation.

    Raises:
        FileNotFoundError: the folder of images or one of the json files is missing.
        ValueError: a file that is not json, lacks a field, lists an id twice, or refers to an image or a
            category that it does not list.
    """
    require_folder(root, LAYOUT)
    images = require_folder(root / split, LAYOUT)
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
    entries = [
        Item(
            path.relative_to(images).with_suffix("").as_posix(),
            partial(read_image, path, str(path)),
            tuple(sorted(labels[identity])),
            captions.get(identity),
        )
        for identity, path in paths.items()
    ]
    return ImageCollection(
        "coco",
        tuple(category["name"] for category in categories),
        tuple(sorted(entries, key=lambda entry: entry.id)),
        multi_label=True,
    )


def _first_captions(source: Path) -> dict[int, str]:
    captions: dict[int, str] = {}
    for record in _records(_document(source), "annotations", {"image_id": int, "caption": str}, source):
        captions.setdefault(record["image_id"], record["caption"].strip())
    return captions


def _document(source: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(source, LAYOUT))
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
