"""``bigain reproduce``: a table of the paper, asked of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = ("--classify", 2, "--generate", 2, "--steps", 1, "--to-keep", "1", "--n-samples", "1", "--features", "none",
         "--ratio", 0.5, "--timing-rounds", 0, "--quiet")  # fmt: skip


def test_a_table_is_run_judged_and_written_to_a_page(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = call("reproduce", "12", "--model", tiny_model, *SMALL, "--out", tmp_path / "run", "--page", page).output
    assert "detail alone classifies worse than both together" in text
    assert "Frequency selection 2×, keep low" in text
    written = page.read_text()
    assert written.startswith(
        f"# What the paper claims, on {tiny_model}\n\nAt merging 0.5, downsampling 2×, 2 claims: "
    )
    assert "| 12 | detail alone classifies worse than both together | " in written
    assert "## Table 12: keys and values of high or of low frequency alone\n\n| method | accuracy, % |" in written

    # another table in the same folder takes what is there
    more = call("reproduce", "17", "--model", tiny_model, *SMALL, "--out", tmp_path / "run").output
    assert "both together classify worse than merging alone" in more
    assert "L-GTM 50%" in more
    assert "Frequency selection" not in more
    assert "| 17 | both together classify worse than merging alone |" in (tmp_path / "run" / "claims-17.md").read_text()


def test_what_a_model_does_not_have_is_left_out_and_said(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    text = call("reproduce", "6", "--model", tiny_model, *SMALL, "--out", tmp_path / "run").output
    assert "Left out, as this model has no cross-attention: lgtm:ratio=0.5" in text
    assert "L-GTM 50%, locations self_attention/mlp" in text


def test_a_table_that_cannot_be_asked_is_named(call: Callable[..., Any], tmp_path: Path) -> None:
    result = call("reproduce", "9", "--out", tmp_path, fails=True)
    assert "must be one of 6, 7, 8, 11, 12, 15, 16, 17 or all, not '9'" in result.stderr
