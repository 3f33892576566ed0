"""``bigain generate``: images on disk, seeded by number, with a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_images_of_every_method_and_a_page(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("generate", 3, 7, "--count", 2, "-m", "todo-2", "--model", tiny_model, "--steps", 2, "--out", out, "--quiet")
    names = ["0000-3.png", "0001-3.png", "0002-7.png", "0003-7.png"]
    for folder in ("none", "todo_factor=2"):
        assert sorted(file.name for file in (out / folder).iterdir()) == names
    assert (out / "page.png").stat().st_size > 0
    plain = [(out / "none" / name).read_bytes() for name in names]
    assert len(set(plain)) == 4
    assert plain[0] != (out / "todo_factor=2" / names[0]).read_bytes()


def test_methods_that_begin_alike_have_folders_of_their_own(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    alike = "todo:factor=2,layers=0,timesteps=0-300+avgpool:factor=2,layers=0,timesteps=300-"
    both = f"{alike}600 {alike}800"
    call("generate", 3, "--count", 1, "-m", both, "--model", tiny_model, "--steps", 1, "--out", tmp_path / "out", "-q")
    folders = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len(folders) == 3
    assert all(len(folder.name) <= 60 and (folder / "0000-3.png").exists() for folder in folders)


def test_left_out_the_folder_is_named_by_the_model(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("generate", 3, "--count", 1, "--model", tiny_model, "--steps", 1, "--quiet")
    assert (tmp_path / "runs" / "generate" / "model" / "none" / "0000-3.png").exists()


def test_an_image_depends_on_its_number_not_on_the_batch(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    asked = ("generate", 3, "--model", tiny_model, "--steps", 2, "--quiet", "--batch-size", 1)
    call(*asked, "--count", 1, "--out", tmp_path / "one")
    call(*asked, "--count", 2, "--out", tmp_path / "two")
    one, two = (tmp_path / name / "none" / "0000-3.png" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("label", ["10", "A", "-"])
def test_an_unknown_class_is_named_with_the_range(call: Callable[..., Any], tiny_model: str, label: str) -> None:
    result = call("generate", label, "--model", tiny_model, fails=True)
    assert f"a class must be a label in [0, 10), not '{label}'" in result.stderr


def test_classes_have_the_names_that_the_model_knows(call: Callable[..., Any], tmp_path: Path) -> None:
    call("generate", "B", "--steps", 1, "--count", 1, "--out", tmp_path / "name", "--quiet")
    call("generate", 1, "--steps", 1, "--count", 1, "--out", tmp_path / "label", "--quiet")
    name, label = tmp_path / "name" / "none" / "0000-B.png", tmp_path / "label" / "none" / "0000-1.png"
    assert name.read_bytes() == label.read_bytes()
    assert "a class must be A, B, E, " in call("generate", "b", fails=True).stderr
