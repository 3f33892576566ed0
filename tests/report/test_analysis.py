"""The page and the pictures of an analysis with known numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bigain.explain.analysis import Analysis, Piece, Spectrum, in_layer
from bigain.methods import parse, spec
from bigain.report import explain
from bigain.report import style as styles
from bigain.report.explain import analysis_page, analysis_tables, write_analysis

METHODS = ("lgtm-0.5", "todo-2")
PLAIN = Piece(
    0.0, (0.002, 0.004, -0.001), (True, True, False),
    ((0.001, 0.001, 0.001), (0.003, 0.007, -0.003)), ((True, True, True), (True, True, False)),
)  # fmt: skip
WORSE = Piece(
    0.0123, (0.001, -0.001, -0.001), (True, False, False),
    ((0.0, 0.0, 0.0), (0.001, -0.004, -0.003)), ((False, True, False), (True, False, False)),
)  # fmt: skip


def known(*methods: str) -> Analysis:
    """Of 3 images, 2 timesteps, 2 layers and 3 bands; every layer alone loses nothing."""
    spectra = (
        Spectrum(0, (4.0, 1.0, 0.5), (1.0, 0.75, 0.25), (0.0, 0.25, 0.8)),
        Spectrum(1, (4.0, 0.0, 0.5), (1.5, None, 0.125), (0.1, None, 0.9)),
    )
    identity = {"model": "m", "dtype": "float32", "split": "validation", "images": 3, "timesteps": 2, "bands": 3,
                "loss": "l2", "seed": 0}  # fmt: skip
    facts = {"data": "letters", "multi_label": False, "classes": 3, "timesteps": [250, 750],
             "layers": ["first", "second"]}  # fmt: skip
    names = [spec(parse(method)) for method in methods]
    pieces = {"none": PLAIN} | {name: replace(WORSE, spectra=spectra) for name in names}
    pieces |= {in_layer(name, layer): replace(PLAIN, spectra=spectra[layer:][:1]) for name in names for layer in (0, 1)}
    return Analysis(identity, facts, dict.fromkeys(names, (0, 1)), pieces)


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_tables_say_what_is_known() -> None:
    found = known(*METHODS)
    seen, costs, times = analysis_tables(found, "todo:factor=2")
    assert seen.headings == ("layer", "0–0.33", "0.33–0.67", "0.67–1")
    assert seen.rows == (
        ("0", "1.00 (0.00)", "0.75 (0.25)", "0.25 (0.80)"),
        ("1", "1.50 (0.10)", "–", "0.12 (0.90)"),
    )
    assert [row[:4] for row in costs.rows] == [
        ("0 (first)", "0", "+0 ± 0", "66.7"),
        ("1 (second)", "0", "+0 ± 0", "66.7"),
        ("all together", "12.3", "-2 ± 2.65", "33.3"),
    ]
    assert costs.rows[2][4].startswith("-33.3 (")
    assert times.rows == (("250", "100.0", "33.3", "1", "0"), ("750", "66.7", "33.3", "2.33", "-2"))


def test_the_page_has_three_tables_per_finished_method() -> None:
    found = known(*METHODS)
    page = analysis_page(found)
    assert page.count("| --- | ---: |") == 6
    assert "## L-GTM 50%\n\n`lgtm:ratio=0.5`" in page
    assert "Without compression the gap × 1000 is 1.67 on average, the accuracy 66.7%" in page
    found.pieces.pop("todo:factor=2,layers=1")
    assert found.methods == ("lgtm:ratio=0.5",)
    assert analysis_page(found).count("| --- | ---: |") == 3


@pytest.mark.parametrize(("several", "name"), [(False, "accuracy"), (True, "precision@1")])
def test_with_several_true_classes_the_measure_is_precision(several: bool, name: str) -> None:
    found = known(*METHODS)
    found.facts["multi_label"] = several
    page = analysis_page(found)
    assert f"on average, the {name} 66.7%" in page
    for heading in (f"| {name}, % |", f"| {name} without, % | {name} with, % |"):
        assert page.count(heading) == 2
    assert ("accuracy" in page) != several


def test_pictures_are_drawn_and_repeat(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        names = write_analysis(known(*METHODS), tmp_path / folder)
    assert names == ("analysis.md", "spectrum-1.png", "layers.png", "timesteps.png")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name in names[1:]:
        assert pixels(tmp_path / "a" / name).std() > 0


def test_of_many_methods_the_spectra_take_more_pictures_and_all_lines_differ(tmp_path: Path) -> None:
    methods = ("lgtm-0.3", "lgtm-0.5", "abm-0.5", "lgtm-0.7", "todo-2", "todo-3")
    found = known(*methods)
    names = write_analysis(found, tmp_path)
    assert names[1:3] == ("spectrum-1.png", "spectrum-2.png")
    assert pixels(tmp_path / names[1]).shape[1] > pixels(tmp_path / names[2]).shape[1]
    by_method = explain._styles(found.methods)
    assert len({style.colour for style in by_method.values()}) == len(methods)
    assert by_method["abm:ratio=0.5"].colour == styles.COLOURS["ABM"]
    assert styles.PLAIN.colour not in {style.colour for style in by_method.values()}


def test_nothing_finished_is_nothing_to_write(tmp_path: Path) -> None:
    found = known("lgtm-0.5")
    found.pieces.pop("lgtm:ratio=0.5")
    with pytest.raises(ValueError, match="must have a finished method"):
        write_analysis(found, tmp_path)
