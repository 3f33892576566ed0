"""How tables and pictures look, and that showing results needs neither PyTorch nor matplotlib."""

from __future__ import annotations

import subprocess
import sys

from bigain.report.style import COLOURS, markdown_table, styles


def test_results_are_shown_without_pytorch_and_matplotlib() -> None:
    code = (
        "import sys; from bigain.report import allocation, analysis, inspection, labels, pictures, style, table;"
        "from bigain.explain import effects; from bigain.search import settings;"
        "print(*sorted({'torch', 'matplotlib', 'diffusers', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_method_has_one_colour_and_its_variants_differ_in_the_marker() -> None:
    by_key = styles({"a": "ToMe", "b": "ToMe", "c": "both", "d": "L-GTM"})
    assert by_key["a"].colour == by_key["b"].colour == COLOURS["ToMe"]
    assert by_key["a"].marker != by_key["b"].marker
    assert by_key["d"].colour == COLOURS["L-GTM"]
    assert by_key["c"].colour not in COLOURS.values()


def test_apart_every_key_has_a_colour_as_long_as_there_are_colours() -> None:
    by_key = styles({str(number): "ToMe" for number in range(len(COLOURS) + 2)}, apart=True)
    assert len({style.colour for style in by_key.values()}) == len(by_key)
    assert by_key["0"].colour == COLOURS["ToMe"]
    many = styles({str(number): "ToMe" for number in range(40)}, apart=True)
    assert len(many) == 40


def test_a_markdown_table_shows_a_dash_for_an_empty_cell() -> None:
    assert markdown_table(("a", "b"), [("x", ""), ("y", "2")]) == "| a | b |\n| --- | ---: |\n| x | – |\n| y | 2 |"
