"""Tiny data sets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save_image(tmp_path: Path) -> Save:
    """Writes a small image of one grey level below ``tmp_path`` and returns its path."""

    def save(path: str, grey: int = 128, size: tuple[int, int] = (6, 5)) -> Path:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # In a format of its own, so that the test decides about the suffix.
        Image.new("RGB", size, (grey, grey, grey)).save(target, format="PNG")
        return target

    return save


@pytest.fixture
def save_text(tmp_path: Path) -> Save:
    """Writes a text file below ``tmp_path`` and returns its path."""

    def save(path: str, text: str) -> Path:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    return save
