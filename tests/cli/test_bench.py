"""`bigain bench`, as it is typed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigain.report import bench as report


def test_the_command_writes_a_table_a_file_and_a_picture(
    call: Callable[..., Any], families: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tomesd", None)
    families["unet"].build().save_pretrained(tmp_path / "unet")
    config = tmp_path / "unet" / "config.json"
    file, picture = tmp_path / "bench.json", tmp_path / "new" / "bench.png"
    sizes = ("--size", "64x64 128x128", "--rounds", 2)
    text = call("bench", config, "-m", "avgpool-2", *sizes, "--json", file, "--picture", picture, "--threads", 1).output
    for words in ("Average 2×", " 64 │", " 256 │", "zero-cost", "ms by part", "2 interleaved rounds"):
        assert words in text
    content, rows = report.read(file)
    assert content["environment"]["batch_size"] == 2
    assert [row.tokens for row in rows] == [64, 64, 256, 256]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert report.markdown(rows).count("\n") == 5
    with pytest.raises(ValueError, match="bigain bench"):
        report.read(config)
