from __future__ import annotations

import pytest

from bigain.data import load
from bigain.data.labels import class_indices


@pytest.fixture
def write(save_image, save_text):
    for name in ("b", "a", "sub/c", "d"):
        save_image(f"table/{name}.png", grey=ord(name[-1]))

    def write(text: str):
        return save_text("table/list.csv", text)

    return write


def test_names_as_labels(write) -> None:
    path = write("label,path,caption,other\ndog,b.png,A dog.,1\ncat,a.png,,2\ndog,sub/c.png,Two dogs.,3\n")
    for data in (load(path, image_size=16), load(f"csv:{path}", image_size=16)):
        assert data.name == "list"
        assert data.classes == ("cat", "dog")
        assert data.prompts == (("a photo of a cat.",), ("a photo of a dog.",))
        assert [(item.id, item.labels, item.caption, int(item.image[0, 0, 0])) for item in data] == [
            ("a.png", (0,), None, ord("a")),
            ("b.png", (1,), "A dog.", ord("b")),
            ("sub/c.png", (1,), "Two dogs.", ord("c")),
        ]


def test_integers_as_labels_with_a_prompt_csv(write, save_text) -> None:
    path = write("path,label\na.png,2\nb.png,0\n")
    prompts = save_text("prompts.csv", "prompt,classname,classidx\na cat.,cat,0\na cow.,cow,1\na dog.,dog,2\n")
    data = load(path, prompts_csv=prompts, image_size=16)
    assert data.classes == ("cat", "cow", "dog")
    assert [(entry.id, entry.labels) for entry in data.entries] == [("b.png", (0,)), ("a.png", (2,))]
    write("path,label\na.png,3\nb.png,0\n")
    with pytest.raises(ValueError, match=r"label 3 of image 0 is out of range.* below 3, the number of classes"):
        load(path, prompts_csv=prompts, image_size=16)


def test_class_indices() -> None:
    assert class_indices(["b", "a", "b"], None, "x") == (("a", "b"), [1, 0, 1])
    assert class_indices([1, 0, 1], None, "x") == (("0", "1"), [1, 0, 1])
    assert class_indices(["10", "9", "x"], None, "x") == (("10", "9", "x"), [0, 1, 2])
    assert class_indices([0], 3, "x") == (("0", "1", "2"), [0])
    with pytest.raises(ValueError, match=r"x: label -1 of image 1 is out of range: it must be at least 0$"):
        class_indices([0, -1], None, "x")
    with pytest.raises(
        ValueError, match=r"x: integer labels must count from 0 without a gap; 1 is missing.*largest is 2"
    ):
        class_indices([0, 2], None, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.png\n", "has no column 'label'"),
        ("file,label\na.png,x\n", "has no column 'path'"),
        ("path,label\n", "has a header and no rows"),
        ("path,label\na.png,\n", "line 2: the column 'label' is empty"),
        ("path,label\na.png,x\n../secret.png,x\n", r"line 3: the path '../secret.png' leads out of the data set"),
        ("path,label\n/etc/passwd,x\n", "line 2: the path '/etc/passwd' leads out"),
        ("path,label\na.png,x\na.png,y\n", "2 images have the id 'a.png'"),
    ],
)
def test_a_bad_table_is_named(text: str, message: str, write) -> None:
    with pytest.raises(ValueError, match=message):
        load(write(text), image_size=16)


def test_a_missing_table(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.csv is missing. Expected layout: a csv file .* path,label"):
        load(f"csv:{tmp_path}/gone.csv", image_size=16)


def test_a_table_has_no_splits(write) -> None:
    with pytest.raises(ValueError, match="split must be left out for csv data, not 'test'"):
        load(write("path,label\na.png,x\n"), split="test", image_size=16)
