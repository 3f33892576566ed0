"""Strengths at equal FLOPs: no more than the reference takes, and one step weaker takes more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bigain.diffusion import Denoiser, open_model
from bigain.methods import TokenMerging, parse, spec
from bigain.run.cost import flops
from bigain.search.equal_flops import at_equal_flops


@pytest.fixture
def dit(tiny_model: Path) -> Denoiser:
    """Of 64 tokens in its 2 layers."""
    return open_model(tiny_model)


@pytest.mark.parametrize(
    "method", ["tome", "abm", "lgtm:cell=4x4,queries=full,size_aware=true", "quadtree:queries=full"]
)
@pytest.mark.parametrize("reference", ["iekvd:factor=2", "tome:ratio=0.3"])
def test_the_ratio_is_the_least_that_takes_no_more(dit: Denoiser, method: str, reference: str) -> None:
    target = flops(dit, reference, 0)
    [found] = parse(*at_equal_flops(dit, [method], [reference])[reference])
    assert isinstance(found, TokenMerging)
    assert flops(dit, spec(found), 0) <= target
    assert flops(dit, spec(replace(found, ratio=found.ratio - 1 / 64)), 0) > target
    assert spec(replace(found, ratio=0.5)) == spec(parse(method)), "nothing but the ratio is set"


def test_the_factor_is_the_least_that_takes_no_more(dit: Denoiser) -> None:
    found = at_equal_flops(dit, ["todo-4", "iekvd:factor=2,alpha=0"], ["avgpool-2", "todo-3"])
    assert found == {
        "avgpool:factor=2": ["todo:factor=2", "iekvd:factor=2,alpha=0"],
        "todo:factor=3": ["todo:factor=3", "iekvd:factor=3,alpha=0"],
    }


def test_the_weakest_setting_is_one_that_compresses(dit: Denoiser) -> None:
    """Block merging takes a whole block or nothing."""
    assert at_equal_flops(dit, ["abm", "abm:cell=4x4"], ["none"])["none"] == [
        "abm:ratio=0.046875",
        "abm:ratio=0.234375,cell=4x4",
    ]


def test_several_levels_are_searched_by_the_tokens_of_the_finest() -> None:
    model, reference = open_model("glyphs-sd"), "todo:factor=2,levels=1/2"
    [found] = parse(*at_equal_flops(model, ["abm:levels=1/2,queries=full"], [reference])[reference])
    assert isinstance(found, TokenMerging)
    target = flops(model, reference, "")
    assert flops(model, spec(found), "") <= target
    assert flops(model, spec(replace(found, ratio=found.ratio - 1 / 256)), "") > target


@pytest.mark.parametrize(
    ("method", "reference", "words"),
    [
        ("none", "iekvd-2", "must be of single methods, not the 0 of"),
        ("lgtm-0.5+iekvd-2", "iekvd-2", "must be of single methods, not the 2 of"),
        ("lgtm:ratio=0.5>0.3", "iekvd-2", "not by a schedule"),
        ("abm:ratio=0,threshold=5", "iekvd-2", "not by a threshold"),
        ("abm", "abm:ratio=0,threshold=5", "FLOPs that do not depend on the image, not a threshold"),
        ("tome:queries=full", "todo-4", "give larger cells, more levels or layers, or merge the queries too"),
        ("todo:layers=1", "todo-2", "give more levels or layers"),
        ("abm:cell=16x16", "iekvd-2", "must be of methods that suit a 8x8 grid"),
        ("tome:layers=7", "iekvd-2", "must be of methods that act in a layer of this model"),
    ],
)
def test_what_cannot_be_is_refused(dit: Denoiser, method: str, reference: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        at_equal_flops(dit, [method], [reference])


@pytest.mark.parametrize(("methods", "references"), [([], ["todo-2"]), (["tome"], [])])
def test_there_must_be_both(dit: Denoiser, methods: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match="at least one method, and one reference"):
        at_equal_flops(dit, methods, references)
