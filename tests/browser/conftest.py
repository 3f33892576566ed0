"""A real browser: Debian's Chromium, driven by Playwright. `make browser` installs both; else tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

GRADIOS = "Method not implemented."  # what its client warns of when an upload has ended
SIZES = {"desk": (1440, 900), "phone": (390, 844)}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: make browser")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium: make browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, chromium: Any) -> Iterator[Any]:
    """A page on a desk and on a phone; it must end without an error or a warning on its console."""
    width, height = SIZES[request.param]
    page = chromium.new_page(viewport={"width": width, "height": height})
    said: list[str] = []

    def heard(message: Any) -> None:
        if message.type in ("error", "warning") and message.text != GRADIOS:
            said.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    page.close()
    assert said == []
