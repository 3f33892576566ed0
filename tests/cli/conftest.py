"""A tiny random DiT on disk, letters on disk, and a way to call the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDIMScheduler
from typer.testing import CliRunner

from bigain.cli import app
from bigain.data import load
from bigain.run.files import encode_png


@pytest.fixture
def tiny_model(tmp_path: Path, families: Any) -> str:
    """A DiT of 2 layers on 16x16 pixels, 8x8 tokens, with 10 classes."""
    folder = tmp_path / "model"
    families["dit"].build().save_pretrained(folder / "transformer")
    DDIMScheduler(timestep_spacing="trailing").save_pretrained(folder / "scheduler")
    return str(folder)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A folder of three images."""
    folder = tmp_path / "letters"
    folder.mkdir()
    for item in load("glyphs", image_size=20, limit=3):
        (folder / f"{item.id}.png").write_bytes(encode_png(item.image))
    return folder


@pytest.fixture
def call() -> Callable[..., Any]:
    """Calls ``bigain`` with arguments; fails on anything but a clean exit unless ``fails``."""

    def run(*arguments: object, fails: bool = False) -> Any:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if fails:
            assert result.exit_code not in (0, None), result.output
            assert isinstance(result.exception, SystemExit), result.exception
        elif result.exception is not None:
            raise result.exception
        return result

    return run
