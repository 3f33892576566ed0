"""The demo runs other commands, which it shows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from typer.main import get_command

from bigain.cli import app, demo


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that take no time."""
    monkeypatch.setattr(demo, "_RUN", "inspect --help")
    monkeypatch.setattr(demo, "_PAGE", "methods")


def test_it_shows_and_runs_commands_model_by_model(few: None, call: Callable[..., Any]) -> None:
    said = call("demo").output
    assert said.count("$ bigain inspect --help") == said.count("$ bigain methods") == 2
    assert said.count("IE-KVD") >= 2
    assert "pip install" not in said


def test_without_the_extra_it_says_how_to_get_a_page(
    few: None, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "altair" else found(name, *rest)
    )
    said = call("demo").output
    assert "$ bigain methods" not in said
    assert "pip install 'bigain[html]'" in said


def test_it_stops_at_the_first_error(few: None, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_RUN", "methods lgmt")
    result = call("demo", fails=True)
    assert result.exit_code == 1
    assert result.output.count("$ bigain") == 1


@pytest.mark.parametrize("model", demo._MODELS)
def test_its_own_commands_are_well_formed(model: str) -> None:
    for command in (demo._RUN, demo._PAGE):
        name, *words = command.format(model=model).split()
        get_command(app).commands[name].make_context(name, words)  # type: ignore[attr-defined]
