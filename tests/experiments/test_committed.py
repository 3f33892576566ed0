"""The results in the repository belong to the models in the repository, and its tables to the results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bigain
from bigain.diffusion import open_model
from bigain.run.files import fingerprint
from bigain.run.results import read_results
from bigain.search.measuring import read_record
from bigain.zoo import presets
from experiments import classifier, offers, switches, tables

ROOT = Path(__file__).parents[2]
FLOAT32 = {
    "glyphs-dit": ("ablation-float32", "ablation-allocation"),
    "glyphs-dit-64": ("glyphs-dit-64-float32", "ablation-glyphs-dit-64"),
}


def presets_of(model: str) -> list[str]:
    return [preset for one, _, preset in (name.partition("/") for name in presets.names()) if one == model]


@pytest.mark.parametrize("name", [*tables.PAGES, *tables.JOINT])
def test_they_are_of_the_weights_that_ship(name: str) -> None:
    weights = fingerprint(*open_model(name, dtype=torch.bfloat16).networks)
    more = (f"ablation-{name}", f"claims-{name}") if name in ("glyphs-dit", "glyphs-sd") else ()
    more += (f"{name}-alike",) if name in tables.JOINT else ()
    for file in (name, *more):
        results, _ = read_results(ROOT / "results" / f"{file}.json")
        assert (results.settings["model"], results.settings["dtype"]) == (name, "bfloat16")
        assert results.settings["weights"] == weights, "make results ablation claims readme"


def test_float32_is_of_these_weights_too() -> None:
    for model, files in FLOAT32.items():
        weights = fingerprint(*open_model(model).networks)
        for file in files:
            results, _ = read_results(ROOT / "results" / f"{file}.json")
            assert results.settings["dtype"] == "float32"
            assert results.settings["weights"] == weights, "make ablation results readme"


@pytest.mark.parametrize("name", [*tables.PAGES, *tables.ABLATIONS])
def test_the_documentation_shows_them(name: str) -> None:
    results, times = read_results(ROOT / "results" / f"{name}.json")
    assert tables.page(results, times) in (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), "make readme"
    model = results.settings["model"]
    named = {bigain.preset(preset, model).text for preset in presets_of(model)}
    assert {one.method for one in results.comparisons} == named


@pytest.mark.parametrize("name", tables.JOINT)
def test_the_documentation_shows_what_joint_attention_bears(name: str) -> None:
    page = (ROOT / "docs" / "joint-attention.md").read_text(encoding="utf-8")
    results, times = read_results(ROOT / "results" / f"{name}.json")
    assert tables.joint(results, times) in page, "make readme"
    assert {one.method for one in results.comparisons} == {bigain.preset(one, name).text for one in presets_of(name)}
    assert tables.joint(*read_results(ROOT / "results" / f"{name}-alike.json")) in page, "make readme"
    path = ROOT / "results" / f"offers-{name}.json"
    assert offers.table(path) in page, "make readme"
    assert offers.alike(path, name) in page, "make readme"
    weights = fingerprint(*open_model(name).networks)
    assert read_record(path).identity["weights"] == weights, f"make allocate-{name} SPEED=… readme"


def test_the_documentation_shows_what_an_allocation_is_worth() -> None:
    assert tables.allocation() in (ROOT / "docs" / "allocate.md").read_text(encoding="utf-8"), "make readme"


@pytest.mark.parametrize("name", tables.CLASSIFIERS)
def test_the_documentation_shows_what_a_classifier_saves(name: str) -> None:
    table = classifier.table(ROOT / "results" / f"{name}.json")
    assert table in (ROOT / "docs" / "classification.md").read_text(encoding="utf-8"), "make readme"


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, own in tables.BENCHES.items() for name in own])
def test_the_documentation_shows_what_was_timed(page: str, name: str) -> None:
    table = tables.timings(ROOT / "results" / f"{name}.json")
    assert table in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), "make readme"


def test_the_documentation_shows_what_to_turn_on() -> None:
    table = switches.table(ROOT / "results" / f"{tables.SWITCHES}.json")
    assert table in (ROOT / "docs" / "speed.md").read_text(encoding="utf-8"), "make readme"


def test_the_readme_shows_them() -> None:
    assert tables.readme() in (ROOT / "README.md").read_text(encoding="utf-8"), "make readme"


@pytest.mark.parametrize("name", [*tables.PAGES, *tables.JOINT])
def test_the_presets_say_what_was_measured(name: str) -> None:
    results, _ = read_results(ROOT / "results" / f"{name}.json")
    rows = {row.method: row for row in results.rows}
    for preset in (presets.of_model(name, one) for one in presets_of(name)):
        assert results.settings["dtype"] in preset.dtypes
        told = (
            ("measured", rows[bigain.preset(preset.source.partition("/")[2], name).text]),
            ("uncompressed", rows["none"]),
        )
        for field, row in told:
            assert row.accuracy is not None
            measured = {"saved": -100 * (row.flops_change or 0), "accuracy": 100 * row.accuracy}
            drawn = row.recognised if name in tables.JOINT else row.fid  # of few images there is no FID
            assert drawn is not None
            measured |= {"recognised": 100 * drawn} if name in tables.JOINT else {"fid": drawn}
            measured |= {} if row.psnr is None else {"psnr": row.psnr}
            assert preset.about[field].keys() == measured.keys()
            for what, value in measured.items():
                digits = 2 if what == "fid" else 1
                assert preset.about[field][what] == pytest.approx(value, abs=0.51 * 10**-digits)


BEGIN, END = "<!-- mine: begin -->", "<!-- mine: end -->"
OTHER = "<!-- other: begin -->\nkept\n<!-- other: end -->"


def test_what_is_outside_the_markers_stays(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{OTHER}\n{BEGIN}\nold\n{END}\nafter\n")
    tables.put_between(readme, "mine", "| new |\n")
    tables.put_between(readme, "mine", "| newer |\n")
    assert readme.read_text() == f"{OTHER}\n{BEGIN}\n\n| newer |\n\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["none", OTHER, BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{END}{BEGIN}"])
def test_a_file_without_both_markers_once_is_refused_and_stays(text: str, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match=r"README\.md must have the line <!-- mine: begin -->"):
        tables.put_between(readme, "mine", "new")
    assert readme.read_text() == text
