"""Strengths at equal FLOPs: no more than the reference takes, and one step weaker takes more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bigain.diffusion import Denoiser, open_model
from bigain.evaluate import at_equal_flops
from bigain.evaluate.timing import flops
from bigain.methods import TokenMerging, parse, spec


@pytest.fixture
def dit(tiny_model: Path) -> Denoiser:
    """Of 64 tokens in its 2 layers."""
    return open_model(tiny_model)


@pytest.mark.parametrize(
    "method", ["tome", "abm", "lgtm:cell=4x4,queries=full,size_aware=true", "quadtree:queries=full"]
)
@pytest.mark.parametrize("reference", ["iekvd-2", "tome-0.3"])
def test_the_ratio_is_the_least_that_takes_no_more(dit: Denoiser, method: str, reference: str) -> None:
    target = flops(dit, reference, 0)
    [found] = parse(at_equal_flops(dit, method, reference, 0))
    assert isinstance(found, TokenMerging)
    assert flops(dit, spec(found), 0) <= target
    weaker = replace(found, ratio=found.ratio - 1 / 64)
    assert weaker.ratio == 0 or flops(dit, spec(weaker), 0) > target
    assert spec(replace(found, ratio=0.5)) == spec(parse(method)), "nothing but the ratio is set"


def test_the_factor_is_the_least_that_takes_no_more(dit: Denoiser) -> None:
    assert at_equal_flops(dit, "todo-4", "avgpool-2", 0) == "todo:factor=2"
    assert at_equal_flops(dit, "iekvd:factor=2,alpha=0", "todo-3", 0) == "iekvd:factor=3,alpha=0"


@pytest.mark.parametrize(
    ("method", "reference", "words"),
    [
        ("none", "iekvd-2", "no methods: give one"),
        ("lgtm-0.5+iekvd-2", "iekvd-2", "2 methods: give one"),
        ("lgtm:ratio=0.5>0.3", "iekvd-2", "follows a schedule"),
        ("tome:queries=full", "todo-4", "give larger cells"),
        ("tome:layers=7", "iekvd-2", "takes part in no layer"),
    ],
)
def test_what_cannot_be_is_refused(dit: Denoiser, method: str, reference: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        at_equal_flops(dit, method, reference, 0)
