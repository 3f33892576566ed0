"""``bigain fid``: two folders, or a folder and kept statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigain.data import load
from bigain.metrics import features
from bigain.metrics.distribution import fid
from bigain.run.files import encode_png


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders of 40 glyphs, one of them with folders inside; the recogniser stands for Inception."""
    monkeypatch.setattr(features, "InceptionFeatures", lambda device: features.GlyphFeatures(32, device))
    for split in ("test", "validation"):
        for number, item in enumerate(load("glyphs", image_size=32, split=split, limit=40)):
            path = tmp_path / split / (f"{number % 2}" if split == "test" else "") / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(item.image))
    return tmp_path / "test", tmp_path / "validation"


def test_folders_and_kept_statistics_give_the_distance_of_the_features(
    call: Callable[..., Any], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    real, generated = folders
    network = features.GlyphFeatures(32, torch.device("cpu"))
    sets = [
        network.features(np.stack([item.image for item in load("glyphs", image_size=32, split=split, limit=40)]))
        for split in ("test", "validation")
    ]
    kept = tmp_path / "real.safetensors"
    first = call("fid", real, generated, "--keep", kept, "-q").output
    assert first == call("fid", kept, generated, "-q").output
    assert float(first.split()[1].rstrip(":")) == pytest.approx(fid(*sets), abs=2e-3)
    assert "40 images to 40" in first
    assert "must have features" in call("fid", kept, generated, "--size", "32", "-q", fails=True).stderr


def test_bad_folders_are_named(call: Callable[..., Any], folders: tuple[Path, Path], tmp_path: Path) -> None:
    real, generated = folders
    (tmp_path / "empty").mkdir()
    assert "missing" in call("fid", real, tmp_path / "missing", "-q", fails=True).stderr
    assert "must hold images" in call("fid", real, tmp_path / "empty", "-q", fails=True).stderr
    (generated / "large.png").write_bytes(encode_png(np.zeros((40, 32, 3), np.uint8)))
    assert "--size must be given" in call("fid", real, generated, "-q", fails=True).stderr
