from __future__ import annotations

import pytest

from bigain.data import load

LIST = """#Image CLASS-ID SPECIES BREED ID
pug_2 3 2 2
Abyssinian_201 1 1 1
american_bulldog_100 2 2 1
Abyssinian_5 1 1 1
"""


@pytest.fixture
def root(save_image, save_text, tmp_path):
    for grey, name in enumerate(["pug_2", "Abyssinian_201", "american_bulldog_100", "Abyssinian_5", "pug_9"]):
        save_image(f"pets/images/{name}.jpg", grey=grey)
    save_text("pets/annotations/test.txt", LIST)
    save_text("pets/annotations/trainval.txt", "pug_9 1 2 1\n")
    return tmp_path / "pets"


def test_items(root) -> None:
    data = load(f"pets:{root}", image_size=16)
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


def test_the_other_split(root) -> None:
    assert [entry.id for entry in load(f"pets:{root}", split="trainval", image_size=16).entries] == ["pug_9"]


def test_what_is_missing_is_named_with_the_layout(root, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"val\.txt must be a file, not missing.*layout: images/.*annotations/"):
        load(f"pets:{root}", split="val", image_size=16)
    (root / "annotations/test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.txt must be a file, not missing.*layout: images/"):
        load(f"pets:{root}", image_size=16)
    (root / "images").rename(root / "pictures")
    with pytest.raises(FileNotFoundError, match=r"images must be a folder, not missing.*layout: images/"):
        load(f"pets:{root}", image_size=16)
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
def test_a_bad_line_is_named(lines: str, message: str, root, save_text) -> None:
    save_text("pets/annotations/test.txt", lines)
    with pytest.raises(ValueError, match=message):
        load(f"pets:{root}", image_size=16)
