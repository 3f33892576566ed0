from __future__ import annotations

import copy
import json
import re

import pytest

from bigain.data import load

INSTANCES = {
    "images": [{"id": 42, "file_name": "000000000042.jpg"}, {"id": 7, "file_name": "000000000007.jpg"},
               {"id": 9, "file_name": "000000000009.jpg"}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 44, "name": "wine glass"}],
    "annotations": [{"image_id": 42, "category_id": 44}, {"image_id": 42, "category_id": 1, "iscrowd": 1},
                    {"image_id": 42, "category_id": 1}, {"image_id": 7, "category_id": 18}],
}  # fmt: skip
CAPTIONS = {
    "annotations": [{"image_id": 7, "caption": " A dog sits. \n"}, {"image_id": 42, "caption": "Wine."},
                    {"image_id": 7, "caption": "Second."}, {"image_id": 9, "caption": "Nothing here."}],
}  # fmt: skip


@pytest.fixture
def write(save_text):
    def write(instances: object = INSTANCES, captions: object = CAPTIONS) -> None:
        save_text("coco/annotations/instances_val2017.json", json.dumps(instances))
        save_text("coco/annotations/captions_val2017.json", json.dumps(captions))

    return write


@pytest.fixture
def root(save_image, write, tmp_path):
    for number in (42, 7, 9):
        save_image(f"coco/val2017/{number:012d}.jpg", grey=number)
    write()
    return tmp_path / "coco"


def test_coco_is_read_with_labels_and_captions(root) -> None:
    data = load(f"coco:{root}", image_size=16)
    assert data.name == "coco"
    assert data.multi_label
    assert data.classes == ("person", "dog", "wine glass"), "by category id"
    assert data.prompts is not None
    assert data.prompts[2] == ("a photo of a wine glass.",)
    assert [(item.id, item.labels, item.caption, int(item.image[0, 0, 0])) for item in data] == [
        ("000000000007", (1,), "A dog sits.", 7),
        ("000000000009", (), "Nothing here.", 9),
        ("000000000042", (0, 2), "Wine.", 42),
    ]


def test_a_limit_is_a_prefix_by_id(root) -> None:
    assert [entry.id for entry in load(f"coco:{root}", limit=2, image_size=16).entries] == [
        "000000000007",
        "000000000009",
    ]


def test_an_image_without_a_caption(root, write) -> None:
    write(captions={"annotations": []})
    assert load(f"coco:{root}", image_size=16)[0].caption is None


@pytest.mark.parametrize("missing", ["annotations/instances_val2017.json", "annotations/captions_val2017.json"])
def test_a_missing_annotation_file_names_the_layout(missing: str, root) -> None:
    (root / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{re.escape(missing)} must be a file, not missing.*layout: <split>/"):
        load(f"coco:{root}", image_size=16)


def test_a_missing_folder_names_the_layout(root) -> None:
    with pytest.raises(FileNotFoundError, match=r"train2017 must be a folder, not missing.*layout: <split>/"):
        load(f"coco:{root}", split="train2017", image_size=16)
    with pytest.raises(FileNotFoundError, match=r"gone must be a folder, not missing.*layout"):
        load(f"coco:{root}/gone", image_size=16)


def changed(key: str, position: int, **fields: object) -> dict:
    document = copy.deepcopy(INSTANCES)
    document[key][position] |= fields
    return document


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        (changed("images", 0, file_name="../../secret.jpg"), "the path must be relative to .*, not '../../secret.jpg'"),
        (changed("images", 0, file_name="/etc/passwd"), "the path must be relative to .*, not '/etc/passwd'"),
        (changed("images", 1, file_name=None), r"images\[1\] must have 'file_name' of type str, not"),
        (changed("images", 1, id=42), "the ids of its images must differ"),
        (
            changed("images", 1, file_name="000000000042.jpg"),
            "of coco must differ, not '000000000042' for 2 images",
        ),
        (changed("categories", 1, id="1"), r"categories\[1\] must have 'id' of type int, not"),
        (changed("categories", 1, id=44), "the ids of its categories must differ"),
        (changed("annotations", 2, image_id=8), "an annotation must refer to a listed image, not 8"),
        (changed("annotations", 2, category_id=2), "an annotation must refer to a listed category, not 2"),
        ({**INSTANCES, "annotations": ["x"]}, r"annotations\[0\] must have 'image_id'"),
        ({"images": [], "categories": []}, "must have a list 'annotations', not NoneType"),
        ({"images": [], "categories": [], "annotations": []}, "coco must have at least one image, not none"),
        ([], "must hold a json object, not a list"),
    ],
)
def test_bad_annotations_are_named(instances: object, message: str, root, write) -> None:
    write(instances)
    with pytest.raises(ValueError, match=message):
        load(f"coco:{root}", image_size=16)


def test_what_is_not_json(root, save_text) -> None:
    save_text("coco/annotations/captions_val2017.json", "{")
    with pytest.raises(ValueError, match=r"captions_val2017\.json must be json"):
        load(f"coco:{root}", image_size=16)


LIST = """#Image CLASS-ID SPECIES BREED ID
pug_2 3 2 2
Abyssinian_201 1 1 1
american_bulldog_100 2 2 1
Abyssinian_5 1 1 1
"""


@pytest.fixture
def pets(save_image, save_text, tmp_path):
    for grey, name in enumerate(["pug_2", "Abyssinian_201", "american_bulldog_100", "Abyssinian_5", "pug_9"]):
        save_image(f"pets/images/{name}.jpg", grey=grey)
    save_text("pets/annotations/test.txt", LIST)
    save_text("pets/annotations/trainval.txt", "pug_9 1 2 1\n")
    return tmp_path / "pets"


def test_pets_are_read_in_the_order_of_their_class_ids(pets) -> None:
    data = load(f"pets:{pets}", image_size=16)
    assert data.name == "pets"
    assert data.classes == ("Abyssinian", "american bulldog", "pug"), "in the order of the class ids"
    assert data.prompts is not None
    assert data.prompts[1] == ("a photo of a american bulldog, a type of pet.",)
    assert [(item.id, item.labels, int(item.image[0, 0, 0])) for item in data] == [
        ("Abyssinian_201", (0,), 1),
        ("american_bulldog_100", (1,), 2),
        ("pug_2", (2,), 0),
        ("Abyssinian_5", (0,), 3),
    ]


def test_the_other_split(pets) -> None:
    assert [entry.id for entry in load(f"pets:{pets}", split="trainval", image_size=16).entries] == ["pug_9"]


def test_what_is_missing_is_named_with_the_layout(pets, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"val\.txt must be a file, not missing.*layout: images/.*annotations/"):
        load(f"pets:{pets}", split="val", image_size=16)
    (pets / "annotations/test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.txt must be a file, not missing.*layout: images/"):
        load(f"pets:{pets}", image_size=16)
    (pets / "images").rename(pets / "pictures")
    with pytest.raises(FileNotFoundError, match=r"images must be a folder, not missing.*layout: images/"):
        load(f"pets:{pets}", image_size=16)
    with pytest.raises(FileNotFoundError, match=r"gone must be a folder, not missing.*layout"):
        load(f"pets:{tmp_path / 'gone'}", image_size=16)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("../secret_1 1 1 1\n", r"line 1: the path must be relative to .*, not '../secret_1.jpg'"),
        ("/etc/secret_1 1 1 1\n", "line 1: the path must be relative to .*, not '/etc/secret_1.jpg'"),
        ("pug_1 1 1 1\ncat_1 1 1 1\n", "line 2: the breed of class 1 must be 'pug' as above, not 'cat'"),
        ("pug_1 1 1 1\ncat_1 3 1 1\n", r"class ids must count from 1 without a gap, not \[1, 3\]"),
        ("pug_1 0 1 1\n", r"must count from 1 without a gap, not \[0\]"),
        ("pug 1 1 1\n", "line 1: the name must hold a breed, not be 'pug'"),
        ("pug_1\n", "line 1: a line must fit the layout, not be 'pug_1'. Expected layout"),
        ("pug_1 one 1 1\n", "line 1: a line must fit the layout, not be 'pug_1 one 1 1'"),
        ("pug_1 1 1 1\npug_1 1 1 1\n", "the ids of pets must differ, not 'pug_1' for 2 images"),
        ("# nothing\n", r"test\.txt must list an image, not none. Expected layout"),
    ],
)
def test_a_bad_line_is_named(lines: str, message: str, pets, save_text) -> None:
    save_text("pets/annotations/test.txt", lines)
    with pytest.raises(ValueError, match=message):
        load(f"pets:{pets}", image_size=16)
