"""Parts of a text file that a command rewrites."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.readme.markers import put_between

BEGIN, END = "<!-- mine: begin -->", "<!-- mine: end -->"
OTHER = "<!-- other: begin -->\nkept\n<!-- other: end -->"


def test_what_is_outside_the_markers_stays(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{OTHER}\n{BEGIN}\nold\n{END}\nafter\n")
    put_between(readme, "mine", "| new |\n")
    put_between(readme, "mine", "| newer |\n")
    assert readme.read_text() == f"{OTHER}\n{BEGIN}\n\n| newer |\n\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["none", OTHER, BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{END}{BEGIN}"])
def test_a_file_without_both_markers_once_is_refused_and_stays(text: str, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match=r"README\.md must have the line <!-- mine: begin -->"):
        put_between(readme, "mine", "new")
    assert readme.read_text() == text
