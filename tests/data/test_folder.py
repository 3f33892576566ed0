from __future__ import annotations

import pytest

from bigain.data import load


@pytest.fixture
def root(save_image, save_text, tmp_path):
    for name, count in (("red_fox", 2), ("cat", 3), ("Dog", 1)):
        for index in range(count):
            save_image(f"animals/{name}/{index}.{('png', 'JPG', 'webp')[index]}", grey=10 * index)
    save_text("animals/readme.txt", "beside the classes")
    save_text("animals/cat/notes.txt", "beside the images")
    save_image("animals/.thumbnails/cat.png")
    save_image("animals/cat/.hidden.png")
    return tmp_path / "animals"


def test_classes_take_turns_in_sorted_order(root) -> None:
    data = load(f"folder:{root}", image_size=16)
    assert data.name == "animals"
    assert data.classes == ("Dog", "cat", "red_fox")
    assert data.prompts == (("a photo of a Dog.",), ("a photo of a cat.",), ("a photo of a red fox.",))
    assert not data.multi_label
    assert [(item.id, item.labels, int(item.image[0, 0, 0])) for item in data] == [
        ("Dog/0.png", (0,), 0),
        ("cat/0.png", (1,), 0),
        ("red_fox/0.png", (2,), 0),
        ("cat/1.JPG", (1,), 10),
        ("red_fox/1.JPG", (2,), 10),
        ("cat/2.webp", (1,), 20),
    ]


def test_a_plain_path_is_a_folder(root) -> None:
    assert [entry.id for entry in load(root, image_size=16).entries] == [
        entry.id for entry in load(f"folder:{root}", image_size=16).entries
    ]


def test_a_split_is_a_folder_above_the_classes(root) -> None:
    data = load(root.parent, split="animals", image_size=16)
    assert data.classes == ("Dog", "cat", "red_fox")


def test_a_class_list_restricts(root, save_text) -> None:
    data = load(root, classes=save_text("two.txt", "red_fox\ncat\n"), image_size=16)
    assert data.classes == ("cat", "red_fox")
    assert {entry.id.split("/")[0]: entry.labels for entry in data.entries} == {"cat": (0,), "red_fox": (1,)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\nlion\n", r"list\.txt must name classes that are in .*animals, not 'lion'"),
        ("cat\ncat\n", r"list\.txt must name the class 'cat' once, not 2 times"),
        ("../animals/cat\n", "must name classes that are in"),
        ("\n", r"list\.txt must name a class, not none"),
    ],
)
def test_a_bad_class_list(text: str, message: str, root, save_text) -> None:
    with pytest.raises(ValueError, match=message):
        load(root, classes=save_text("list.txt", text), image_size=16)


def test_an_empty_folder_names_the_expected_layout(tmp_path, save_image) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty must have a class folder, not none. Expected .*<class>/"):
        load(tmp_path / "empty", image_size=16)
    save_image("flat/a.png")
    with pytest.raises(ValueError, match=r"flat must have a class folder, not none. Expected layout"):
        load(tmp_path / "flat", image_size=16)
    (tmp_path / "empty/lion").mkdir()
    with pytest.raises(ValueError, match=r"the class folder .*lion must have an image, not none. Expected layout"):
        load(tmp_path / "empty", image_size=16)


def test_a_missing_folder_names_the_expected_layout(root) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone must be a folder, not missing.*layout: <folder>/<class>/"):
        load(f"folder:{root}/gone", image_size=16)
    with pytest.raises(FileNotFoundError, match="val must be a folder, not missing"):
        load(root, split="val", image_size=16)
