"""The results in the repository belong to the models in the repository, and the README to the results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bigain
from bigain.diffusion import open_model
from bigain.methods import parse, spec
from bigain.report.table import markdown, markdown_rows
from bigain.run.files import fingerprint
from bigain.run.results import read_results
from bigain.zoo import presets
from experiments.paper.claims import paper_tables
from experiments.paper.page import rows_of
from experiments.readme.against import against
from experiments.readme.side_by_side import side_by_side

ROOT = Path(__file__).parents[2]
PUBLISHED = ("none", "tome:ratio=0.5,destinations=random", "lgtm-0.5", "abm-0.5", "sito-0.5", "todo-2", "avgpool-2",
             "iekvd-2")  # fmt: skip


@pytest.mark.parametrize("name", ["glyphs-dit", "glyphs-sd"])
def test_they_are_of_the_weights_that_ship(name: str) -> None:
    denoiser = open_model(name, dtype=torch.bfloat16)
    for file in (name, f"ablation-{name}", f"claims-{name}"):
        results, _ = read_results(ROOT / "results" / f"{file}.json")
        assert results.settings["model"] == name
        assert results.settings["dtype"] == "bfloat16"
        assert results.settings["weights"] == fingerprint(*denoiser.networks), "make results ablation claims readme"


def test_float32_is_of_these_weights_too() -> None:
    results, _ = read_results(ROOT / "results" / "float32-glyphs-dit.json")
    assert results.settings["dtype"] == "float32"
    assert results.settings["weights"] == fingerprint(*open_model("glyphs-dit").networks), "make float32 readme"


DOCUMENTED = ["glyphs-dit", "glyphs-sd", "float32-glyphs-dit", "ablation-glyphs-dit", "ablation-glyphs-sd"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documentation_shows_them(name: str) -> None:
    results, times = read_results(ROOT / "results" / f"{name}.json")
    assert markdown(results, times).strip() in (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), "make readme"


@pytest.mark.parametrize("name", ["glyphs-dit", "glyphs-sd"])
def test_the_documentation_sets_the_presets_against_the_rest(name: str) -> None:
    results, _ = read_results(ROOT / "results" / f"{name}.json")
    assert {each.method for each in results.comparisons} == {
        spec(bigain.preset(preset, name)) for preset in ("quality", "balanced", "fast")
    }
    assert against(results).strip() in (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), "make readme"


@pytest.mark.parametrize(("name", "ratio"), [("glyphs-dit", 0.3), ("glyphs-sd", 0.7)])
def test_the_page_of_claims_rests_on_the_committed_results(name: str, ratio: float) -> None:
    results, times = read_results(ROOT / "results" / f"claims-{name}.json")
    page = (ROOT / "docs" / f"claims-{name}.md").read_text(encoding="utf-8")
    for table in paper_tables(ratio, 2).values():
        assert markdown_rows(results.with_rows(rows_of(table, results)), times) in page, "make claims"


def test_the_readme_shows_both_models() -> None:
    runs = []
    for name in ("glyphs-sd", "glyphs-dit"):
        results, times = read_results(ROOT / "results" / f"{name}.json")
        presets = [spec(bigain.preset(preset, name)) for preset in ("quality", "balanced", "fast")]
        shown = {spec(parse(text)) for text in PUBLISHED} | {*presets}
        runs.append((results.with_rows(tuple(row for row in results.rows if row.method in shown)), times))
    assert len(runs[0][0].rows) == len(PUBLISHED) + 3
    assert side_by_side(runs).strip() in (ROOT / "README.md").read_text(encoding="utf-8"), "make readme"


def test_the_presets_say_what_was_measured() -> None:
    for model in ("glyphs-dit", "glyphs-sd"):
        results, _ = read_results(ROOT / "results" / f"{model}.json")
        rows = {row.method: row for row in results.rows}
        for name in ("quality", "balanced", "fast"):
            preset = presets.of_model(model, name)
            assert results.settings["dtype"] in preset.dtypes
            for told, row in (
                (preset.about["measured"], rows[spec(bigain.preset(name, model))]),
                (preset.about["uncompressed"], rows["none"]),
            ):
                measured = {"saved": -100 * (row.flops_change or 0), "accuracy": 100 * row.accuracy, "fid": row.fid}
                measured |= {} if row.psnr is None else {"psnr": row.psnr}
                assert told.keys() == measured.keys()
                for what, digits in (("saved", 1), ("accuracy", 1), ("fid", 2), ("psnr", 1)):
                    assert what not in told or told[what] == pytest.approx(measured[what], abs=0.51 * 10**-digits)
