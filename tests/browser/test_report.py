"""The page of a run in a browser: it needs no network, and what it offers works by pointer and by keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bigain.report.html import Run, write_page
from bigain.report.style import label
from bigain.run.store import Store
from bigain.run.summary import summarise, timings

MARKS = "#front path[aria-roledescription=point]"


@pytest.fixture
def opened(page: Any, known_store: Store, tmp_path: Path) -> Any:
    """The page of a run with all parts; nothing but itself may be asked for."""
    for number, method in enumerate(known_store.methods()):
        known_store.set_flops(method, 1000 - 100 * number, [500, 400 - 100 * number])
    run = Run(summarise(known_store), timings(known_store), known_store)
    write_page(tmp_path / "page.html", run, run)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector(MARKS)
    yield page
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "page.html").as_uri()]


def column(page: Any, number: int) -> list[str]:
    """The cells of a column of the table, from above."""
    return page.locator(f"#table tbody tr > :nth-child({number})").all_inner_texts()  # type: ignore[no-any-return]


def test_nothing_is_wider_than_the_screen(opened: Any) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for chart in opened.locator(".chart svg").all():
        assert chart.bounding_box()["width"] <= opened.viewport_size["width"]


def test_the_table_sorts_by_what_is_clicked(opened: Any) -> None:
    heading = opened.locator("#table thead th", has_text="accuracy")
    place = 1 + heading.evaluate("heading => heading.cellIndex")
    button = heading.locator("button")
    button.focus()
    for order, descending in (("ascending", False), ("descending", True)):
        opened.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == order
        values = [float(text.split()[0]) for text in column(opened, place)]
        assert values == sorted(values, reverse=descending)


def test_a_mark_tells_its_method_to_a_pointer(opened: Any) -> None:
    opened.locator(MARKS).first.hover(force=True)
    opened.wait_for_selector("#vg-tooltip-element.visible")
    said = opened.locator("#vg-tooltip-element").inner_text()
    assert "method" in said
    assert "FID" in said


def test_axes_and_methods_are_chosen(opened: Any, known_store: Store) -> None:
    opened.select_option("#across", "fid")
    opened.wait_for_function("document.querySelector('#front').textContent.includes('FID')")
    marks = opened.locator(MARKS).count()
    method = known_store.methods()[-1]
    opened.locator(f"#table tr[data-method='{method}'] .show").uncheck()
    opened.wait_for_function(f"document.querySelectorAll('{MARKS}').length === {marks - 1}")
    assert not opened.locator(f".samples tr[data-method='{method}']").is_visible()
    opened.locator("#all").uncheck()
    opened.locator("#all").check()
    opened.wait_for_function(f"document.querySelectorAll('{MARKS}').length === {marks}")


def test_the_wipe_moves_between_two_methods(opened: Any, known_store: Store) -> None:
    first, last = known_store.methods()[0], known_store.methods()[-1]
    opened.select_option("#right", last)
    assert label(first).name in opened.locator("#under").get_attribute("alt")
    assert label(last).name in opened.locator("#over").get_attribute("alt")
    assert opened.locator("#under").get_attribute("src") != opened.locator("#over").get_attribute("src")
    opened.locator("#edge").focus()
    before = opened.locator("#over").evaluate("image => getComputedStyle(image).clipPath")
    opened.keyboard.press("ArrowRight")
    assert opened.locator("#over").evaluate("image => getComputedStyle(image).clipPath") != before
    opened.locator(".sample").nth(1).click()
    assert opened.locator("#sample").input_value() == "1"


def test_axe_finds_nothing_serious(opened: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core: make browser")
    found = axe.Axe().run(opened).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
