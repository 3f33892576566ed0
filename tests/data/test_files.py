from __future__ import annotations

import os
from pathlib import Path

import pytest

from bigain.data.files import folders, inside, read_lines, read_text, require_folder
from bigain.images import image_files


@pytest.mark.parametrize("text", ["a.png", "cats/a.png", "./a.png", "a..b.png", "..a/b.png", "with space.png"])
def test_relative_paths_are_below_the_root(text: str) -> None:
    assert inside(Path("/data"), text, "list.csv, line 2") == Path("/data") / text


@pytest.mark.parametrize(
    "text",
    ["/etc/passwd", "../a.png", "a/../../b.png", "a/..", "..", "C:\\a.png", "C:a.png", "\\a.png", "a\\..\\b.png",
     "\\\\host\\share\\a.png", "//host/a.png"],
)  # fmt: skip
def test_a_path_out_of_the_root_names_where_it_was_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"list\.csv, line 2: the path must be relative to .*data and not lead out"):
        inside(Path("/data"), text, "list.csv, line 2")


@pytest.mark.parametrize("text", ["", "  ", "a\0.png"])
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match=r"list\.csv, line 2: the path must name a file, not "):
        inside(Path("/data"), text, "list.csv, line 2")


def test_a_missing_folder_or_file_names_the_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere must be a folder, not missing.*layout: images/"):
        require_folder(tmp_path / "nowhere", "images/")
    with pytest.raises(FileNotFoundError, match=r"test\.txt must be a file, not missing.*layout: lines"):
        read_text(tmp_path / "test.txt", "lines")


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.txt must be UTF-8"):
        read_text(tmp_path / "a.txt", "lines")


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeff# a comment\n\n one \r\ntwo\n", encoding="utf-8")
    assert read_lines(tmp_path / "a.txt", "lines") == [(3, "one"), (4, "two")]


def test_listings_are_sorted_and_leave_out_what_is_hidden_or_no_image(tmp_path: Path) -> None:
    for name in ("b.JPEG", "a.png", "c.Webp", "._a.png", "notes.txt", "no_suffix"):
        (tmp_path / name).touch()
    for name in ("z", "y", ".cache", "folder.png"):
        (tmp_path / name).mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.JPEG", "c.Webp"]
    assert [path.name for path in folders(tmp_path)] == ["folder.png", "y", "z"]


def test_a_list_that_is_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"list\.csv must be a file, not a pipe"):
        read_text(tmp_path / "list.csv", "lines")


def test_a_folder_that_is_a_file_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    with pytest.raises(FileNotFoundError, match=r"images must be a folder, not a file"):
        require_folder(tmp_path / "images", "images/")
