"""The page in a browser: each tab from end to end, what it refuses, a stop in the middle, and two users at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bigain.data.glyphs import Glyphs
from bigain.run.files import encode_png
from bigain.run.settings import ModelSettings

LONG = 60_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Where the page is served."""
    pytest.importorskip("gradio", reason="no Gradio: pip install 'bigain[ui]'")
    from bigain.ui.page import serve

    served = serve(ModelSettings(), host="127.0.0.1", port=None, upload="100kb")
    yield served.local_url
    served.close()


@pytest.fixture
def opened(page: Any, address: str) -> Any:
    """The page; nothing but this machine may be asked for anything."""
    page.set_default_timeout(LONG)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#compress-start")
    yield page
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    page.wait_for_selector(f"#{name.lower()}-{'saved' if name == 'Choose' else 'start'}")


def choose_model(page: Any, name: str) -> None:
    page.locator("#model input").click()
    page.get_by_role("option", name=name, exact=True).click()


def told(page: Any) -> str:
    """What an error says, which is then closed."""
    toast = page.locator(".toast-body")
    toast.first.wait_for()
    said = toast.first.inner_text()
    page.locator(".toast-close").first.click()
    toast.first.wait_for(state="detached")
    return str(said)


def test_an_image_is_compressed(opened: Any) -> None:
    opened.click("#compress-start")
    facts = opened.locator("#compress-status dl")
    facts.wait_for()
    assert re.search(r"\d\.\d\d → \d\.\d\d", facts.inner_text())
    assert "dB" in facts.inner_text()
    images = opened.locator(".pixels img")
    opened.wait_for_function("document.querySelectorAll('.pixels img').length === 3")
    before = images.nth(2).get_attribute("src")
    opened.locator("#compress-layer input").click()
    opened.get_by_role("option").nth(1).click()
    opened.wait_for_function(
        "before => document.querySelectorAll('.pixels img')[2]?.getAttribute('src') !== before", arg=before
    )


def test_a_long_sampling_shows_how_far_it_is_and_stops(opened: Any) -> None:
    opened.get_by_role("button", name="Sampling").click()
    steps = opened.locator("#compress-steps input[type=number]")
    steps.fill("100")
    steps.press("Enter")
    opened.click("#compress-start")
    opened.wait_for_function("document.querySelector('#compress-status progress')?.value > 2")
    opened.click("#compress-stop")
    opened.wait_for_function("document.querySelector('#compress-status')?.textContent.includes('Stopped.')")
    time.sleep(1)
    assert "Stopped." in opened.locator("#compress-status").inner_text()
    steps.fill("2")
    steps.press("Enter")
    opened.click("#compress-start")  # the thread is free again
    opened.wait_for_selector("#compress-status dl")


def test_a_prompt_that_is_too_long_is_refused(opened: Any) -> None:
    choose_model(opened, "glyphs-sd")
    prompt = opened.locator("#compress-prompt textarea")
    prompt.wait_for()
    prompt.fill("A" * 301)
    opened.click("#compress-start")
    assert "the prompt must have 1 to 300 characters, not 301" in told(opened)
    tab(opened, "Classify")
    opened.click("#classify-letter")
    opened.locator("#classify-prompts textarea").fill("a red A\n" + "B" * 301)
    opened.wait_for_selector("#classify-letter ~ .pixels img, .pixels img >> visible=true")
    opened.click("#classify-start")
    assert "a prompt must have at most 300 characters, not 301" in told(opened)


def test_a_letter_is_classified(opened: Any) -> None:
    tab(opened, "Classify")
    opened.click("#classify-start")
    assert "an image must be given first" in told(opened)
    opened.click("#classify-letter")
    opened.locator(".pixels img >> visible=true").wait_for()
    opened.click("#classify-start")
    opened.get_by_text("The same without compression").wait_for()
    opened.get_by_text("125 forwards would be those of the papers' stages").wait_for()
    answers = opened.locator("#classify-verdict dd").all_inner_texts()
    assert answers[0] == "A"
    assert opened.locator("#classify-verdict tbody tr.out").count() >= 9


def test_a_file_is_classified_and_a_wrong_one_refused(opened: Any, tmp_path: Path) -> None:
    tab(opened, "Classify")
    upload = opened.locator("#classify-file input[type=file]")
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(b"no image at all")
    upload.set_input_files(wrong)
    assert re.search(r"wrong\.png .*(image|decoded)", told(opened))
    opened.locator("#classify-file").get_by_role("button", name=re.compile("remove|clear", re.I)).first.click()
    right = tmp_path / "letter.png"
    right.write_bytes(encode_png(Glyphs("test").pixels(2)))  # an E
    opened.locator("#classify-file input[type=file]").set_input_files(right)
    opened.locator(".pixels img >> visible=true").wait_for()
    opened.click("#classify-start")
    opened.get_by_text("The same without compression").wait_for()
    assert opened.locator("#classify-verdict dd").first.inner_text() == "E"


def test_a_file_that_is_too_large_is_refused(opened: Any, tmp_path: Path) -> None:
    tab(opened, "Classify")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(200_000))
    opened.locator("#classify-file input[type=file]").set_input_files(large)
    assert "100" in told(opened)


def test_a_budget_is_chosen_and_taken_away(opened: Any, tmp_path: Path) -> None:
    tab(opened, "Choose")
    assert opened.locator(".chart svg").count() == 2
    saved = opened.locator("#choose-saved input[type=number]")
    saved.fill("40")
    saved.press("Enter")
    opened.locator("#choose-saved input[type=range]").press("ArrowRight")
    opened.wait_for_function("parseFloat(document.querySelector('#choose-status dd').textContent) >= 40")
    with opened.expect_download() as download:
        opened.click("#choose-download")
    download.value.save_as(tmp_path / "preset.json")
    assert '"bigain preset 1"' in (tmp_path / "preset.json").read_text()
    assert "bigain.apply(model" in opened.locator("#choose-code textarea").input_value()


def test_two_users_get_their_own(opened: Any, address: str, chromium: Any) -> None:
    other = chromium.new_page()
    other.set_default_timeout(LONG)
    other.goto(address)
    for page, letter in ((opened, 0), (other, 1)):
        tab(page, "Classify")
        for _ in range(letter + 1):
            page.click("#classify-letter")
            page.locator(".pixels img >> visible=true").wait_for()
            time.sleep(1)
    for page in (opened, other):
        page.click("#classify-start")
    for page, letter in ((opened, "A"), (other, "B")):
        page.get_by_text("125 forwards would be those of the papers' stages").wait_for()
        assert page.locator("#classify-verdict dd").first.inner_text() == letter
    other.close()


@pytest.mark.parametrize("name", ["Compress", "Classify", "Choose"])
def test_axe_finds_nothing_serious(opened: Any, name: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core: make browser")
    tab(opened, name)
    if name == "Classify":
        opened.click("#classify-letter")
        opened.locator(".pixels img >> visible=true").wait_for()
    if name != "Choose":
        opened.click(f"#{name.lower()}-start")
        opened.wait_for_selector(f"#{name.lower()}-{'status' if name == 'Compress' else 'verdict'} dl")
    time.sleep(1)
    found = axe.Axe().run(opened).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"][:150] for node in one["nodes"][:3]]) for one in serious] == []
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
