"""The table: what each cell says, and where a README keeps it."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from bigain.report.table import caption, markdown, terminal
from bigain.run.results import Results, Timings
from bigain.run.store import Store
from bigain.run.summary import summarise, timings


@pytest.fixture
def found(known_store: Store) -> tuple[Results, Timings]:
    return summarise(known_store), timings(known_store)


def cells(text: str) -> list[dict[str, str]]:
    """Markdown's rows by heading."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_each_method_has_a_line_with_what_was_found(found: tuple[Results, Timings]) -> None:
    plain, todo = cells(markdown(*found))
    assert plain["method"] == "No compression"
    assert plain["accuracy, %"].startswith("75.0 (30.1–95.4)")
    assert plain["change, points"] == plain["PSNR, dB"] == "–"
    assert todo["method"] == "ToDo 2×"
    assert todo["change, points"].startswith("-25.0 (")
    assert todo["change, points"].endswith("; p = 1.00)")
    assert todo["PSNR, dB"] == "28.1"
    assert todo["MFLOPs"] == "0.0 (-10.0%)"
    assert todo["ms per forward, batch 2"] == "1.5 (2.00×)"
    assert todo["recognised, %"].startswith("100.0 (")


def test_the_caption_names_data_reference_and_machine(found: tuple[Results, Timings]) -> None:
    text = markdown(*found)
    for words in ("Accuracy: 4 images, split test", "6 real images of letters (split validation)", "test-network",
                  "median of 3 forwards of 2 images", "1 CPU threads", "guidance 1"):  # fmt: skip
        assert words in text


def test_an_fid_of_few_images_is_cautioned(found: tuple[Results, Timings]) -> None:
    results, times = found
    assert "rough guide" not in markdown(results, times)
    few = tuple(dataclasses.replace(row, generated=2) for row in results.rows)
    assert "rough guides only, of no more images than its 2 dimensions" in markdown(
        dataclasses.replace(results, rows=few), times
    )


def test_columns_that_nothing_fills_are_left_out(found: tuple[Results, Timings]) -> None:
    results, _ = found
    rows = tuple(dataclasses.replace(row, fid=None, kid=None, kid_deviation=None) for row in results.rows)
    headings = cells(markdown(dataclasses.replace(results, rows=rows)))[0].keys()
    assert not {"FID", "KID × 1000", "mAP (classes), %", "classified"} & headings
    assert not any("ms per forward" in heading for heading in headings)


def test_counts_have_a_column_where_a_run_is_not_finished(found: tuple[Results, Timings]) -> None:
    results, times = found
    rows = (results.rows[0], dataclasses.replace(results.rows[1], classified=2))
    table = cells(markdown(dataclasses.replace(results, rows=rows), times))
    assert [line["classified"] for line in table] == ["4", "2"]


def test_the_caption_says_what_an_unfinished_run_lacks(found: tuple[Results, Timings]) -> None:
    results, times = found
    assert " has " not in caption(results, times)
    plain, todo = results.rows
    short = dataclasses.replace(todo, classified=2, change_images=2)
    text = caption(dataclasses.replace(results, rows=(plain, short)), times)
    assert "todo:factor=2 has 2 classified images and no compression 4; the two are compared on the 2" in text
    many = (plain, *(dataclasses.replace(short, method=f"todo:factor={factor}") for factor in range(2, 8)))
    text = caption(dataclasses.replace(results, rows=many), times)
    assert text.count("the two are compared") == 3
    assert text.endswith("So of 3 more methods.")


def test_precision_and_recall_have_columns_where_they_were_measured(found: tuple[Results, Timings]) -> None:
    results, times = found
    rows = tuple(dataclasses.replace(row, precision=0.5, recall=0.25) for row in results.rows)
    plain, _ = cells(markdown(dataclasses.replace(results, rows=rows), times))
    assert (plain["precision, %"], plain["recall, %"]) == ("50.0", "25.0")
    rows = tuple(dataclasses.replace(row, precision=None, recall=None) for row in results.rows)
    assert "precision, %" not in cells(markdown(dataclasses.replace(results, rows=rows), times))[0]


@pytest.mark.parametrize("width", [80, 170])
def test_a_terminal_shows_every_value_whatever_its_width(found: tuple[Results, Timings], width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(terminal(*found, width))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    text = "".join(lines)
    for value in ("75.0 (30.1–95.4)", "-25.0 (p = 1.00)", "28.1", "1.5 (2.00×)", "ToDo 2×"):
        assert value in text
