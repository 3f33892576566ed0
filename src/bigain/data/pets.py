"""Oxford-IIIT Pets (Parkhi et al., CVPR 2012) as distributed: images/ and annotations/."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from bigain.data.dataset import ImageCollection, Item
from bigain.data.files import inside, read_lines, require_folder
from bigain.data.prompts import PET
from bigain.images import read_image

LAYOUT = (
    "images/<Breed>_<number>.jpg and annotations/<split>.txt with lines '<Breed>_<number> CLASS-ID SPECIES BREED-ID'"
)

_LINE = re.compile(r"(?P<image>\S+) (?P<class_id>[0-9]{1,9})( [0-9]+){0,2}")


def pets(root: Path, split: str = "test") -> ImageCollection:
    """Classes in the order of the annotations' class ids; ids are the images' names, like ``Abyssinian_201``.

    Args:
        split: ``"test"`` (3,669 images) or ``"trainval"``.

    Raises:
        FileNotFoundError: ``images/`` or the split's text file is missing.
        ValueError: an empty text file or a line that does not fit; class ids that do not count from 1 without a
            gap, or that stand for two breeds.
    """
    require_folder(root, LAYOUT)
    images = require_folder(root / "images", LAYOUT)
    source = root / "annotations" / f"{split}.txt"
    rows: list[tuple[str, int, Path]] = []
    breeds: dict[int, str] = {}
    for number, line in read_lines(source, LAYOUT):
        where = f"{source}, line {number}"
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{where}: a line must fit the layout, not be {line!r}. Expected layout: {LAYOUT}")
        name, class_id = match["image"], int(match["class_id"])
        path = inside(images, f"{name}.jpg", where)
        breed = path.stem.rpartition("_")[0].replace("_", " ")
        if not breed:
            raise ValueError(f"{where}: the name must hold a breed, not be {name!r}. Expected layout: {LAYOUT}")
        if breeds.setdefault(class_id, breed) != breed:
            raise ValueError(
                f"{where}: the breed of class {class_id} must be {breeds[class_id]!r} as above, not {breed!r}"
            )
        rows.append((name, class_id - 1, path))
    if not rows:
        raise ValueError(f"{source} must list an image, not none. Expected layout: {LAYOUT}")
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise ValueError(f"{source}: class ids must count from 1 without a gap, not {sorted(breeds)}")
    entries = tuple(Item(name, partial(read_image, path, str(path)), (label,)) for name, label, path in sorted(rows))
    names = tuple(breeds[class_id] for class_id in sorted(breeds))
    return ImageCollection("pets", names, entries, template=PET)
