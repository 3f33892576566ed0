"""The paper's tables, run on a tiny model, judged and written to a page; published figures beside measured ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bigain.run.results import Row
from bigain.run.summary import summarise
from experiments.paper import compare, reproduce

SMALL = ("--classify", "2", "--generate", "2", "--steps", "1", "--to-keep", "1", "--n-samples", "1", "--features",
         "none", "--timing-rounds", "0", "--quiet")  # fmt: skip


def test_a_table_is_run_judged_and_written_to_a_page(tiny_model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    flags = ["--ratio", "0.5", "--out", str(tmp_path / "run"), "--page", str(page)]
    reproduce.main(["12", *flags, "--model", str(tiny_model), *SMALL])
    written = page.read_text()
    assert written.startswith(f"# What the paper claims, on {tiny_model}\n\n2 claims (")
    assert "| 12 | detail only classifies worse than both together | " in written
    assert "## Table 12: keys and values of high or of low frequency only\n\n| method | accuracy, % |" in written
    # another table in the same folder takes what is measured already
    reproduce.main(["6", "--without-text", *flags, "--model", str(tiny_model), *SMALL])
    written = page.read_text()
    assert "L-GTM 50%, locations self_attention/mlp" in written
    assert "cross_attention" not in written
    assert "Frequency selection" not in written


def test_published_figures_stand_beside_measured_ones(known_store: Any) -> None:
    row = Row(method="lgtm:ratio=0.7", accuracy=0.75, fid=37.0, flops_change=-0.13)
    text = compare.comparison("sd2-pets", replace(summarise(known_store), rows=(Row(method="none"), row)))
    assert "| L-GTM 70% | accuracy, % | 74.63 | 75.00 | +0.37 |" in text
    assert "| L-GTM 70% | FID | 37.73 | 37.00 | -0.73 |" in text
    assert "| L-GTM 70% | FLOPs saved, % | 12.40 | 13.00 | +0.60 |" in text
    assert "| ToDo 4× | FID | 31.48 | – | – |" in text
    with pytest.raises(ValueError, match=r"the results must be named sd2-imagenet.*not 'mine'"):
        compare.comparison("mine", summarise(known_store))
