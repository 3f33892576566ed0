"""The table of docs/bound.md, and what tables show of a bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bounds import table
from bigain.zoo.published import names

PAGE = (Path(__file__).parents[2] / "docs" / "bound.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["SD-1.5", "DiT-XL-2-512", "PixArt-Sigma", "FLUX.2-dev", "Z-Image", "LTX-Video-2B"])
def test_the_page_has_what_the_command_says(name: str) -> None:
    headings, line, *rows = table([name]).splitlines()
    assert f"{headings}\n{line}\n" in PAGE
    assert all(f"{row}\n" in PAGE for row in rows)
    assert len(rows) == PAGE.count(f"| {name} |")


def test_the_page_has_every_published_model() -> None:
    assert all(f"\n| {name} | " in PAGE for name in names())
