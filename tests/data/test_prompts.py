from __future__ import annotations

import pytest

from bigain.data.prompts import LETTER, PET, PHOTO, Prompts, check_against, from_template, read_prompts, shared

HEADER = "prompt,classname,classidx\n"


def test_templates() -> None:
    assert from_template(("tench", "red_fox"), PHOTO) == (("a photo of a tench.",), ("a photo of a red fox.",))
    assert from_template(("pug",), PET) == (("a photo of a pug, a type of pet.",),)
    assert from_template(("A",), LETTER) == (("a photo of the letter A",),)
    assert from_template(("{}",), PHOTO) == (("a photo of a {}.",),), "names are text, not formats"


def test_several_rows_of_a_class_are_several_prompts(save_text) -> None:
    path = save_text(
        "prompts.csv",
        "classidx,note,prompt,classname\n1,,a dog.,dog\n0,x,a cat.,cat\n1,,'a dog, asleep',dog\n".replace("'", '"'),
    )
    assert read_prompts(path) == Prompts(("cat", "dog"), (("a cat.",), ("a dog.", "a dog, asleep")))


def test_a_byte_order_mark_and_blank_lines_do_not_matter(save_text) -> None:
    path = save_text("prompts.csv", "\ufeff" + HEADER + "\na cat.,cat,0\n\n")
    assert read_prompts(path).classes == ("cat",)


@pytest.mark.parametrize("missing", ["prompt", "classname", "classidx"])
def test_a_missing_column_is_named(missing: str, save_text) -> None:
    columns = [column for column in ("prompt", "classname", "classidx") if column != missing]
    path = save_text("prompts.csv", ",".join(columns) + "\na,0\n")
    with pytest.raises(ValueError, match=rf"prompts\.csv must have a column '{missing}', not only .*Expected"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a cat.,cat,0\na dog.,dog,0\n", "line 3: the name of classidx 0 must be 'cat' as above, not 'dog'"),
        ("a cat.,cat,0\na dog.,dog,2\n", "without a gap, not leave out 1 below 2"),
        ("a cat.,cat,1\n", "without a gap, not leave out 0 below 1"),
        ("a cat.,cat,0\na dog.,dog,999999999\n", "not leave out 1 below 999999999"),
        ("a cat.,cat,-1\n", "line 2: classidx must be an integer from 0, not '-1'"),
        ("a cat.,cat,one\n", "line 2: classidx must be an integer from 0, not 'one'"),
        ("a cat.,cat,1.0\n", "not '1.0'"),
        ("a cat.,cat,99999999999999\n", "not '99999999999999'"),
        (
            "a tench, Tinca tinca,tench,0\n",
            "line 2: a row must have 3 cells .*, not 4; is a comma not quoted",
        ),
        ("a cat.,cat\n", "line 2: a row must have 3 cells as the header has, not 2"),
        (",cat,0\n", "line 2: the column 'prompt' must not be empty"),
        ("a cat., ,0\n", "line 2: the column 'classname' must not be empty"),
        ("", "must have a row below its header"),
        ('"a cat.,cat,0\n', "a row must be csv"),
    ],
)
def test_a_bad_row_is_named(rows: str, message: str, save_text) -> None:
    path = save_text("prompts.csv", HEADER + rows)
    with pytest.raises(ValueError, match=message) as caught:
        read_prompts(path)
    assert "prompts.csv" in str(caught.value)


def test_an_empty_and_a_missing_file(save_text, tmp_path) -> None:
    with pytest.raises(ValueError, match="must have a column 'prompt'"):
        read_prompts(save_text("empty.csv", ""))
    with pytest.raises(FileNotFoundError, match=r"gone\.csv must be a file, not missing.*prompt,classname,classidx"):
        read_prompts(tmp_path / "gone.csv")


def of(*names: str) -> Prompts:
    return Prompts(names, tuple((f"a {name}",) for name in names))


def test_prompts_must_be_for_the_data_sets_classes(tmp_path) -> None:
    path = tmp_path / "prompts.csv"
    check_against(of("Red Fox", "great-white shark"), ("red_fox", "Great white shark"), path)
    check_against(of("tench", "goldfish"), ("n01440764", "n01443537"), path)
    with pytest.raises(ValueError, match=r"classidx must lie in \[0, 1\] for this data set, not 2"):
        check_against(of("a", "b", "c"), ("a", "b"), path)
    with pytest.raises(ValueError, match=r"prompts for all 3 classes, not 2: classidx 2 \('c'\) is missing"):
        check_against(of("a", "b"), ("a", "b", "c"), path)
    with pytest.raises(ValueError, match=r"classidx must follow .*, in which class 1 is 'b', not 'c'"):
        check_against(of("a", "c", "b"), ("a", "b", "c"), path)


def test_prompts_in_common_are_found() -> None:
    prompts = Prompts(("a", "b", "c"), (("x", "y", "x"), ("z",), ("y",)))
    assert shared(prompts.prompts) == [("y", [0, 2])]
