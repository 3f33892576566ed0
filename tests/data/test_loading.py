from __future__ import annotations

import pytest

from bigain.data import load


@pytest.fixture
def root(save_image, tmp_path):
    for name, count in (("cat", 1), ("dog", 4), ("fox", 2)):
        for index in range(count):
            save_image(f"animals/{name}/{index}.png")
    return tmp_path / "animals"


@pytest.mark.parametrize("name", ["cifar", "mnist:/tmp", "Glyphs", "/no/such/folder", "imagenet1k:x"])
def test_an_unknown_data_set_lists_the_known_ones(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"must be .* one of glyphs, .*glyphs-moving, imag.* hub:ID, not '{name}'"):
        load(name, image_size=16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("imagenet", "imagenet:PATH"),
        ("pets:", "pets:PATH"),
        ("hub", "hub:ID"),
        ("glyphs:/tmp", "glyphs"),
        ("glyphs-scenes:/tmp", "glyphs-scenes"),
    ],
)
def test_a_name_written_wrongly(name: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"must be written '{expected}', not '{name}'"):
        load(name, image_size=16)


def test_a_limit_is_a_balanced_prefix(root) -> None:
    ids = [entry.id for entry in load(root, image_size=16).entries]
    assert ids == ["cat/0.png", "dog/0.png", "fox/0.png", "dog/1.png", "fox/1.png", "dog/2.png", "dog/3.png"]
    for limit in range(1, 8):
        assert [entry.id for entry in load(root, limit=limit, image_size=16).entries] == ids[:limit]


@pytest.mark.parametrize("limit", [0, -1, 8])
def test_a_limit_out_of_range(limit: int, root) -> None:
    with pytest.raises(ValueError, match=rf"limit must lie in \[1, 7\] for .*animals, not {limit}"):
        load(root, limit=limit, image_size=16)


def test_a_prompt_csv_overrides_template_and_names(root, save_text) -> None:
    path = save_text("p.csv", "prompt,classname,classidx\na tom,tomcat,0\na hound,hound,1\nreynard,reynard,2\n")
    data = load(root, prompts_csv=path, image_size=16)
    assert data.classes == ("tomcat", "hound", "reynard")
    assert data.prompts == (("a tom",), ("a hound",), ("reynard",))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,a,0\nb,b,1\nc,c,2\nd,d,3\n", r"p\.csv: classidx must lie in \[0, 2\] for this data set, not 3"),
        ("a,a,0\nb,b,1\n", r"p\.csv must have prompts for all 3 classes, not 2: classidx 2 \('fox'\) is missing"),
        (
            "a,dog,0\nb,cat,1\nc,fox,2\n",
            r"p\.csv: classidx must follow .*, in which class 0 is 'cat', not 'dog'",
        ),
    ],
)
def test_a_prompt_csv_for_other_classes(rows: str, message: str, root, save_text) -> None:
    path = save_text("p.csv", "prompt,classname,classidx\n" + rows)
    with pytest.raises(ValueError, match=message):
        load(root, prompts_csv=path, image_size=16)


def test_prompts_that_classes_share_are_warned_about(root, save_text) -> None:
    path = save_text("p.csv", "prompt,classname,classidx\nan animal,cat,0\nan animal,dog,1\na fox,fox,2\n")
    with pytest.warns(UserWarning, match=r"the classes \[0, 1\] share the prompt 'an animal'"):
        load(root, prompts_csv=path, image_size=16)


def test_classes_only_where_they_mean_something(root) -> None:
    with pytest.raises(ValueError, match="classes must be left out for glyphs data"):
        load("glyphs", classes=root, image_size=16)


def test_the_image_size_must_be_positive(root) -> None:
    with pytest.raises(ValueError, match="image_size must be at least 1 pixel, not 0"):
        load(root, image_size=0)
