"""The page of a run: what is in it, and what it takes no harm from. What it does is seen in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bigain.cli import app
from bigain.report import html
from bigain.report.html import Run, write_page
from bigain.run.files import encode_png
from bigain.run.results import read_results, write_results
from bigain.run.store import Classified, Generated, Store
from bigain.run.summary import summarise, timings
from bigain.search.measuring import Measured, Record, write_record
from bigain.search.offers import CONTRAST_WEIGHT

RESULTS = Path(__file__).parents[2] / "results"
TODO = "todo:factor=2"


def of_store(store: Store) -> Run:
    return Run(summarise(store), timings(store), store)


def read(path: Path) -> dict[str, Any]:
    """The data that the page holds."""
    text = path.read_text(encoding="utf-8")
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    result: dict[str, Any] = json.loads(data)
    return result


def test_a_run_with_its_images(known_store: Store, tmp_path: Path) -> None:
    write_page(tmp_path / "new" / "page.html", of_store(known_store))
    data = read(tmp_path / "new" / "page.html")
    assert data["methods"] == known_store.methods()
    first = next(known_store.generated(TODO))
    kept = data["samples"][first.image]["images"][TODO]
    assert base64.b64decode(kept.removeprefix("data:image/png;base64,")) == first.file
    points = {one["method"]: one for one in data["charts"]["front"]["data"]["values"]}
    row = next(row for row in summarise(known_store).rows if row.method == TODO)
    assert points[TODO]["accuracy"] == pytest.approx(100 * row.accuracy, rel=1e-4)
    assert points[TODO]["fid"] == pytest.approx(row.fid, rel=1e-4)
    assert set(data["axes"]) >= {"accuracy", "fid", "saved"}


def test_errors_over_timesteps_are_means_over_images_that_have_both(
    known_store: Store, classified: Callable[..., Classified], tmp_path: Path
) -> None:
    errors = np.full((3, len(known_store.facts["timesteps"])), 9.0, np.float32)
    known_store.add_classified("none", [classified("of all", 7, (0, 1, 2), (0, 1, 2), errors)])
    write_page(tmp_path / "page.html", of_store(known_store))
    points = read(tmp_path / "page.html")["charts"]["gap"]["data"]["values"]
    for method in known_store.methods():
        rows = [*known_store.classified(method)]
        for number, t in enumerate(known_store.facts["timesteps"]):
            gaps = []
            for row in rows:
                if len(row.labels) == 3:
                    continue  # there is no other class
                true = row.errors[list(row.labels), number]
                others = np.delete(row.errors[:, number], list(row.labels))
                if np.isfinite(true).any() and np.isfinite(others).any():
                    gaps.append(np.nanmin(others) - np.nanmin(true))
            found = [one["gap"] for one in points if (one["method"], one["t"]) == (method, t)]
            assert found == ([pytest.approx(np.mean(gaps), rel=1e-3, abs=1e-6)] if gaps else [])


def test_what_blocks_save(known_store: Store, tmp_path: Path) -> None:
    known_store.set_flops("none", 1000, [400, 200, 0])
    known_store.set_flops(TODO, 800, [200, 200, 0])
    write_page(tmp_path / "page.html", of_store(known_store))
    points = read(tmp_path / "page.html")["charts"]["layers"]["data"]["values"]
    assert [(one["layer"], one["saved"]) for one in points if one["method"] == TODO] == [(0, 50.0), (1, 0.0)]


def test_what_layers_cost_is_told_for_each_percent_that_they_save(tmp_path: Path) -> None:
    half = Measured(1, "avgpool:factor=2,layers=1", 50, (0.2, 0.4), (0.1, 0.1))
    nothing = Measured(0, "avgpool:factor=2,layers=0", 0, (0.2, 0.4), (0.1, 0.1))
    write_record(tmp_path / "offers.json", Record({}, 1000, (100, 700), (half, nothing)))
    write_page(tmp_path / "page.html", Run(*read_results(RESULTS / "glyphs-dit.json")), offers=tmp_path / "offers.json")
    [point] = read(tmp_path / "page.html")["charts"]["offers"]["data"]["values"]
    cost = 0.3 + CONTRAST_WEIGHT * 0.1
    assert point == {"label": "Average 2×", "layer": 1, "saved": 5.0, "cost": pytest.approx(cost / 5, rel=1e-4)}


def test_exported_results_have_no_images_and_the_rest(tmp_path: Path) -> None:
    results, times = read_results(RESULTS / "glyphs-dit.json")
    write_page(tmp_path / "page.html", Run(results, times))
    data = read(tmp_path / "page.html")
    assert data["samples"] == []
    assert list(data["charts"]) == ["front"]
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for command in results.commands:
        assert command in text
    assert "What they generate" not in text


def test_two_runs_are_told_apart(tmp_path: Path) -> None:
    results, times = read_results(RESULTS / "glyphs-dit.json")
    rows = tuple(replace(row, fid=1.5) if row.method == "none" else row for row in results.rows[:3])
    before = replace(results, rows=rows, settings=results.settings | {"steps": 7})
    write_page(tmp_path / "page.html", Run(results, times), Run(before, None))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Settings differ: steps is 7 there and 10 here." in text
    assert "1.5 → 2.547 (+1.05)" in text
    part = text.partition("Against the other run")[2].partition("</section>")[0]
    assert part.count('scope="row"') == 3, "what both measured"


def test_words_of_the_data_do_no_harm(known_store: Store, tmp_path: Path) -> None:
    harm = "</script><script>alert(1)</script>"
    pixels, features = encode_png(np.zeros((2, 2, 3), np.uint8)), np.zeros(2, np.float32)
    known_store.add_methods(["none", TODO])
    for method in ("none", TODO):
        known_store.add_generated(method, [Generated(-1, None, harm, pixels, None, features)])
    write_page(tmp_path / "page.html", of_store(known_store))
    assert harm not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert read(tmp_path / "page.html")["samples"][0]["asked"] == harm


def test_large_images_become_fewer_and_smaller(
    known_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "_PICTURES", 1000)
    monkeypatch.setattr(html, "_SIDE", 4)
    write_page(tmp_path / "page.html", of_store(known_store))
    samples = read(tmp_path / "page.html")["samples"]
    assert 2 <= len(samples) < len([*known_store.generated("none")])
    kind, _, content = samples[0]["images"]["none"].partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert (kind, max(image.size)) == ("data:image/webp", 4)


def test_the_command(tmp_path: Path) -> None:
    results, times = read_results(RESULTS / "glyphs-dit.json")
    assert times is not None
    write_results(tmp_path / "mine.json", results, times)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["report", str(tmp_path / "mine.json"), *arguments])
        return result.stdout + result.stderr

    page = tmp_path / "page.html"
    assert f"In {page}: open it in a browser" in call("--html", str(page), "--against", str(tmp_path / "mine.json"))
    assert "Both have the same settings" in page.read_text(encoding="utf-8")
    assert page.stat().st_size < 5_000_000
    assert "html must end in .html, not" in call("--html", str(tmp_path / "page.pdf"))
    assert "against must be left out without --html" in call("--against", str(tmp_path / "mine.json"))
