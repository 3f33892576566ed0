"""Names, colours and tables of methods; and that showing results needs neither PyTorch nor matplotlib."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bigain.methods import parse, preset_names, spec
from bigain.report.style import COLOURS, label, markdown_table, styles
from bigain.zoo.presets import text_of


def test_results_are_shown_without_pytorch_and_matplotlib() -> None:
    code = (
        "import sys; from bigain.report import allocation, explain, pictures, style, table;"
        "from bigain.run import settings;"
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


@pytest.mark.parametrize(
    ("spec", "name", "family"),
    [
        ("none", "No compression", "No compression"),
        ("lgtm-0.7", "L-GTM 70%", "L-GTM"),
        ("tome-0.5", "ToMe 50%, first of the cell", "ToMe, first of the cell"),
        (
            "tome:ratio=0.3,destinations=random,redraw=forward",
            "ToMe 30%, random per forward",
            "ToMe, random per forward",
        ),
        ("tome:ratio=0.3,destinations=random", "ToMe 30%, random per image", "ToMe, random per image"),
        ("quadtree-0.5", "Quadtree 50%", "Quadtree"),
        ("iekvd-3", "IE-KVD 3×, α 0.9", "IE-KVD, α 0.9"),
        ("iekvd:factor=2,alpha=0.8>1.2", "IE-KVD 2×, α 0.8→1.2", "IE-KVD, α 0.8→1.2"),
        ("todo-4", "ToDo 4×", "ToDo"),
        ("abm:ratio=0.7>0.3", "ABM 70→30%", "ABM"),
        ("lgtm:ratio=0.5,score=l1_norm,cached=true", "L-GTM 50%, cached, score l1_norm", "L-GTM, cached"),
        (
            "tome:ratio=0.5,size_aware=true,queries=full,layers=0",
            "ToMe 50%, first of the cell, layers 0, size-aware, keys and values only",
            "ToMe",
        ),
        ("lgtm-0.5+todo-2", "L-GTM 50% + ToDo 2×", "L-GTM 50% + ToDo 2×"),
    ],
)
def test_a_label_says_method_strength_and_what_is_not_as_published(spec: str, name: str, family: str) -> None:
    assert str(label(spec)) == name
    assert label(spec).family.startswith(family)


def test_labels_of_all_shorthands_differ() -> None:
    assert len({str(label(name)) for name in preset_names()}) == len(preset_names())


def test_strength_grows_with_the_compression() -> None:
    assert label("lgtm-0.3").amount < label("lgtm-0.5").amount < label("lgtm-0.7").amount
    assert label("todo-2").amount < label("todo-4").amount


def test_presets_of_models_go_by_their_names() -> None:
    assert (
        str(label("glyphs-sd/balanced")) == str(label(spec(parse(text_of("glyphs-dit/balanced"))))) == "Preset balanced"
    )
    ordered = [label(f"glyphs-dit/{name}") for name in ("quality", "balanced", "fast")]
    assert [one.family for one in ordered] == ["Preset"] * 3
    assert ordered[0].amount < ordered[1].amount < ordered[2].amount
