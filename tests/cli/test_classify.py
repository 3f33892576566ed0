"""``bigain classify``: predictions as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--to-keep", "2 1", "--n-samples", "1 2", "--quiet")


def test_a_folder_is_classified_image_by_image(
    call: Callable[..., Any], tiny_model: str, letters: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found.json"
    text = call("classify", letters, "--model", tiny_model, *SMALL, "--json", out).output
    found = json.loads(out.read_text())
    assert [Path(row["image"]).name for row in found["images"]] == [f"glyphs-test-{i:06d}.png" for i in range(3)]
    for row in found["images"]:
        assert row["prediction"] == row["ranking"][0]["class"]
        assert sorted(int(place["class"]) for place in row["ranking"]) == list(range(10))
        assert [place["stages"] for place in row["ranking"]] == [2, 1] + [0] * 8
        kept = [place["error"] for place in row["ranking"][1:] if place["stages"] == 0]
        assert kept == sorted(kept)
    assert "12.0 forwards per image" in text


def test_prompts_without_a_model_are_read_by_the_embedded_text_model(call: Callable[..., Any], letters: Path) -> None:
    result = call("classify", letters, "-p", "cat", "-p", "dog", *SMALL, "--json", "-")
    found = json.loads(result.stdout)
    assert found["model"] == "glyphs-sd"
    assert {place["class"] for place in found["images"][0]["ranking"]} == {"cat", "dog"}


def test_a_race_takes_what_was_fitted(call: Callable[..., Any], letters: Path, tmp_path: Path) -> None:
    fitted = tmp_path / "fit.json"
    few = ("--images", "10", "--candidates", "4", "--timesteps", "3", "--error-rate", "0.2", "--quiet")
    text = call("fit", *few, "--out", fitted).output
    assert "timesteps, the most telling first: " in text
    race = ("--elimination", "racing", "--fitted", fitted, "--quiet", "--json", "-")
    found = json.loads(call("classify", letters, *race).stdout)
    told = json.loads(fitted.read_text())["timesteps"]
    for row in found["images"]:
        assert 10 <= row["forwards"] <= 10 * len(told)
    message = call("classify", letters, "--fitted", "glyphs-sd", "--quiet", fails=True).stderr
    assert "fitted must be of the model that classifies, glyphs-dit, not glyphs-sd" in message
    message = call("classify", letters, "--fitted", tmp_path / "none.json", "--quiet", fails=True).stderr
    assert "no fit" in message


def test_a_tree_of_prompts_is_descended(call: Callable[..., Any], letters: Path, tmp_path: Path) -> None:
    prompts = [f"a photo of a letter {letter}" for letter in "ABEG"]
    tree = tmp_path / "tree.json"
    tree.write_text(json.dumps({"a red letter": prompts[:2], "a blue letter": prompts[2:]}))
    first = sorted(letters.iterdir())[0]
    given = ("classify", first, *(part for prompt in prompts for part in ("-p", prompt)), "--quiet", "--json", "-")
    [row] = json.loads(call(*given, "--elimination", tree, "--n-samples", "3").stdout)["images"]
    assert sorted(place["class"] for place in row["ranking"]) == prompts
    assert row["forwards"] == 2 * 2 + 2  # groups at two timesteps, and the classes of the better one at the third
    message = call(*given, "-p", "a", "--elimination", tree, fails=True).stderr
    assert "tree.json must be a tree of classes, as JSON: the tree must hold each class once" in message


def test_json_alone_goes_to_standard_output(call: Callable[..., Any], tiny_model: str, letters: Path) -> None:
    first = sorted(letters.iterdir())[0]
    result = call("classify", first, "--model", tiny_model, *SMALL, "-m", "lgtm-0.5", "--json", "-")
    assert json.loads(result.stdout)["method"] == "lgtm:ratio=0.5"


def test_a_bad_image_is_fatal_or_skipped_as_asked(call: Callable[..., Any], tiny_model: str, letters: Path) -> None:
    (letters / "bad.png").write_text("no image")
    asked = ("classify", letters, "--model", tiny_model, *SMALL)
    assert "bad.png must be a readable image" in call(*asked, fails=True).stderr
    result = call(*asked, "--bad-images", "skip", "--json", "-")
    assert "skipped: " in result.stderr
    assert len(json.loads(result.stdout)["images"]) == 3


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        ("letters/missing.png", [], "missing.png"),
        ("empty", [], "must hold images"),
        ("letters", ["-p", "a cat"], "class-conditional"),
        ("letters", ["--dtype", "int8"], "--dtype must be one of"),
        ("letters", ["--elimination", "tree"], "--elimination must be staged, racing or the .json or .txt"),
    ],
)
def test_bad_input_is_named(
    call: Callable[..., Any], tiny_model: str, letters: Path, path: str, more: list[str], words: str
) -> None:
    (letters.parent / "empty").mkdir()
    assert words in call("classify", letters.parent / path, "--model", tiny_model, *SMALL, *more, fails=True).stderr


def test_the_same_picture_under_two_names_scores_the_same(
    call: Callable[..., Any], tiny_model: str, letters: Path
) -> None:
    first = sorted(letters.iterdir())[0]
    copies = [letters.parent / "a.png", letters.parent / "b.png"]
    for copy in copies:
        copy.write_bytes(first.read_bytes())
    rows = json.loads(call("classify", *copies, "--model", tiny_model, *SMALL, "--json", "-").stdout)["images"]
    assert [Path(row.pop("image")).name for row in rows] == ["a.png", "b.png"]
    assert [place["class"] for place in rows[0]["ranking"]] == [place["class"] for place in rows[1]["ranking"]]
    for one, two in zip(rows[0]["ranking"], rows[1]["ranking"], strict=True):
        assert one["error"] == pytest.approx(two["error"], abs=2e-6)


def test_an_image_says_how_sure_the_model_is_and_what_it_cost(
    call: Callable[..., Any], tiny_model: str, letters: Path
) -> None:
    rows = json.loads(call("classify", letters, "--model", tiny_model, *SMALL, "--json", "-").stdout)["images"]
    for row in rows:
        assert row["forwards"] == 12
        assert row["margin"] == pytest.approx(row["ranking"][1]["error"] - row["ranking"][0]["error"], abs=2e-6)
        assert row["probability"] == row["ranking"][0]["probability"]
        assert sum(place["probability"] for place in row["ranking"]) == pytest.approx(1, abs=1e-4)


def test_it_fails_where_all_images_are_skipped(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    asked = ("classify", tmp_path / "bad.png", "--model", tiny_model, *SMALL, "--bad-images", "skip")
    assert "all 1 were skipped" in call(*asked, fails=True).stderr


def test_stages_may_be_left_out(call: Callable[..., Any], tiny_model: str, letters: Path) -> None:
    first = sorted(letters.iterdir())[0]
    [row] = json.loads(call("classify", first, "--model", tiny_model, "-q", "--json", "-").stdout)["images"]
    assert row["forwards"] == 10 * 5 + 5 * 15


@pytest.mark.parametrize(
    ("prompts", "words"),
    [(["a cat", "a cat"], "must differ between classes"), (["a cat"], "at least two classes")],
)
def test_prompts_that_tell_nothing_apart_are_refused(
    call: Callable[..., Any], letters: Path, prompts: list[str], words: str
) -> None:
    given = [part for prompt in prompts for part in ("-p", prompt)]
    assert words in call("classify", letters, "--model", "glyphs-sd", *given, fails=True).stderr


def test_quiet_is_quiet(call: Callable[..., Any], letters: Path) -> None:
    first = sorted(letters.iterdir())[0]
    prompts = ["-p", "a photo of the letter A", "-p", "a photo of the letter B"]
    result = call("classify", first, "--model", "glyphs-sd", *prompts, "--n-samples", "1", "--quiet", "--json", "-")
    assert result.stderr == ""
