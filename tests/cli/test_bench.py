"""`bigain bench`, as it is typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigain.report import bench as report

UNET = dict(
    sample_size=16,
    layers_per_block=1,
    block_out_channels=(32, 32),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=16,
    attention_head_dim=4,
    norm_num_groups=8,
)


def test_the_command_writes_a_table_a_file_and_a_picture(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tomesd", None)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"_class_name": "UNet2DConditionModel", **UNET}))
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
