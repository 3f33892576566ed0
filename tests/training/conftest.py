"""Runs the programs of training/ in this process, as `python training/NAME.py ...` would; tests import their parts."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

TRAINING = Path(__file__).parents[2] / "training"
sys.path.append(str(TRAINING))


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Runs a program with arguments, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> None:
        program = str(TRAINING / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        with torch.random.fork_rng(devices=[]):
            runpy.run_path(program, run_name="__main__")

    return run
