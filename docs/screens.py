"""Takes the pictures of the pages, as they look on a desk and on a phone: `make screens`, after `make browser demo`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from bigain.run.settings import ModelSettings
from bigain.ui.page import serve

PICTURES = Path(__file__).with_name("pictures")
REPORT = Path("runs/evaluate/glyphs-sd/report.html")
SIZES = {1440: 900, 390: 844}


def report(page: Any) -> None:
    """The page of the demo's run."""
    page.goto(REPORT.absolute().as_uri())
    page.wait_for_selector(".chart svg")


def compress(page: Any) -> None:
    """An image, without and with a method."""
    page.click("#compress-start")
    page.wait_for_function("document.querySelectorAll('.pixels img').length === 3")


def classify(page: Any) -> None:
    """The fourth letter, and its race."""
    page.get_by_role("tab", name="Classify").click()
    for _ in range(4):
        page.click("#classify-letter")
        page.wait_for_timeout(1500)
    page.click("#classify-start")
    page.get_by_text("125 forwards would be").wait_for()


def choose(page: Any) -> None:
    """What each layer costs."""
    page.get_by_role("tab", name="Choose").click()
    page.wait_for_selector(".chart svg")


def main() -> None:
    """All of them."""
    served: Any = serve(ModelSettings(), host="127.0.0.1", port=None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, height in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            report(page)
            page.wait_for_timeout(1000)
            page.screenshot(path=PICTURES / f"report-{width}.png", full_page=True)
            for take in (compress, classify, choose):
                page.goto(served.local_url)
                page.wait_for_selector("#compress-start")
                take(page)
                page.wait_for_timeout(1000)
                page.screenshot(path=PICTURES / f"ui-{take.__name__}-{width}.png", full_page=True)
            page.close()
        browser.close()
    served.close()


if __name__ == "__main__":
    main()
