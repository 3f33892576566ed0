"""CONTRIBUTING.md names files and names that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PLACES = (ROOT, ROOT / "src" / "bigain", ROOT / "tests" / "methods")
FILES = sorted({*re.findall(r"`([\w/.-]+\.(?:py|md))`", TEXT)} - {"src/bigain/methods/NAME.py"})
NAMES = sorted({*re.findall(r"`(\w+)`\s+in\s+`([\w/.-]+\.py)`", TEXT)})


def located(file: str) -> list[Path]:
    return [place / file for place in PLACES if (place / file).is_file()]


@pytest.mark.parametrize("file", FILES)
def test_its_files_exist(file: str) -> None:
    assert len(located(file)) == 1


@pytest.mark.parametrize(("name", "file"), NAMES)
def test_its_names_are_in_their_files(name: str, file: str) -> None:
    [path] = located(file)
    assert re.search(rf"\b{name}\b", path.read_text(encoding="utf-8"))
