from __future__ import annotations

import pytest

from bigain.data import BadImageError, load
from bigain.data.folder import class_indices


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
    with pytest.raises(ValueError, match=r"list\.csv, line 2: the label must be in \[0, 3\).* prompt csv, not 3"):
        load(path, prompts_csv=prompts, image_size=16)


def test_class_indices() -> None:
    rows = ["row 0", "row 1", "row 2"]
    assert class_indices(["b", "a", "b"], None, rows) == (("a", "b"), [1, 0, 1])
    assert class_indices([1, 0, 1], None, rows) == (("0", "1"), [1, 0, 1])
    assert class_indices(["10", "9", "x"], None, rows) == (("10", "9", "x"), [0, 1, 2])
    assert class_indices([0], 3, rows[:1]) == (("0", "1", "2"), [0])
    with pytest.raises(ValueError, match=r"^row 1: the label must be at least 0, not -1$"):
        class_indices([0, -1], None, rows[:2])
    with pytest.raises(ValueError, match=r"^row 1: integer labels must count from 0 .*, not reach 2 without 1"):
        class_indices([0, 2], None, rows[:2])


def test_a_column_that_comes_twice_is_refused_instead_of_taking_the_last(write) -> None:
    with pytest.raises(ValueError, match=r"list\.csv must have one column 'label', not 2"):
        load(write("path,label,label\na.png,cat,dog\n"), image_size=16)


def test_a_bad_image_of_a_table_is_named_with_the_line_that_lists_it(write) -> None:
    data = load(write("path,label\na.png,x\ngone.png,x\n"), image_size=16)
    with pytest.raises(BadImageError, match=r"gone\.png \(.*list\.csv, line 3\) must be a readable image, not missing"):
        list(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.png\n", "must have a column 'label', not only"),
        ("file,label\na.png,x\n", "must have a column 'path', not only"),
        ("path,label\n", "must have a row below its header"),
        ("path,label\na.png,\n", "line 2: the column 'label' must not be empty"),
        ("path,label\na.png,x\n../secret.png,x\n", r"line 3: the path must be relative to .*, not '../secret.png'"),
        ("path,label\n/etc/passwd,x\n", "line 2: the path must be relative to .*, not '/etc/passwd'"),
        ("path,label\na.png,x\na.png,y\n", "the ids of list must differ, not 'a.png' for 2 images"),
    ],
)
def test_a_bad_table_is_named(text: str, message: str, write) -> None:
    with pytest.raises(ValueError, match=message):
        load(write(text), image_size=16)


def test_a_missing_table(tmp_path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"gone\.csv must be a file, not missing.*layout: a csv file .* path,label"
    ):
        load(f"csv:{tmp_path}/gone.csv", image_size=16)


def test_a_table_has_no_splits(write) -> None:
    with pytest.raises(ValueError, match="split must be left out for csv data, not 'test'"):
        load(write("path,label\na.png,x\n"), split="test", image_size=16)
