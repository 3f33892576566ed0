"""Names in tables and pictures: short, and different where the methods are."""

from __future__ import annotations

import pytest

from bigain.methods import parse, preset_names, spec
from bigain.report.labels import label
from bigain.zoo.presets import text_of


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
    assert [each.family for each in ordered] == ["Preset"] * 3
    assert ordered[0].amount < ordered[1].amount < ordered[2].amount
