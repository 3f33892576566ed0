"""What a run is to do: reading lists of methods, settings that check themselves, and what identifies results."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bigain.methods import parse
from bigain.run.settings import GRIDS, Settings, differences, identity_hash, split_specs


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["lgtm-0.7"], ("lgtm-0.7",)),
        (["lgtm-0.7,todo-2 ,  abm-0.3"], ("lgtm-0.7", "todo-2", "abm-0.3")),
        (["tome:ratio=0.5,destinations=random,lgtm:ratio=0.5,score=l1_norm"],
         ("tome:ratio=0.5,destinations=random", "lgtm:ratio=0.5,score=l1_norm")),
        (["lgtm-0.7+iekvd:factor=2,alpha=0.8>1.2;todo-2", "none"],
         ("lgtm-0.7+iekvd:factor=2,alpha=0.8>1.2", "todo-2", "none")),
        (["alpha=2"], ("alpha=2",)),
        ([], ()),
    ],
)  # fmt: skip
def test_lists_of_methods_come_apart_between_methods_only(texts: list[str], found: tuple[str, ...]) -> None:
    assert split_specs(texts) == found


@pytest.mark.parametrize(("kind", "usual"), [("class", 4.0), ("text", 7.5)])
def test_guidance_that_is_left_out_is_the_papers(kind: str, usual: float) -> None:
    assert Settings().resolved(kind).guidance == usual
    assert Settings(guidance=2.0).resolved(kind).guidance == 2.0
    assert Settings(steps=3).resolved(kind).generation_forwards() == 6


def test_no_compression_comes_first_and_once() -> None:
    settings = Settings(methods=("lgtm-0.7", "none", "lgtm:ratio=0.7"))
    assert settings.methods == ("none", "lgtm:ratio=0.7")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ("bogus-1",)}, "bogus"),
        ({"methods": ("lgtm-1.5",)}, "ratio"),
        ({"methods": ("todo-0",)}, "factor"),
        ({"methods": ("iekvd:factor=2,alpha=nan",)}, "alpha"),
        ({"classify": -1}, "classify must be at least 0, not -1"),
        ({"classify": 0, "generate": 0, "timing_rounds": 0}, "nothing to evaluate"),
        ({"steps": 0}, "steps"),
        ({"guidance": 0.5}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"loss": "l3"}, "l2, l1, huber"),
        ({"dtype": "int8"}, "bfloat16"),
        ({"sampler": "magic"}, "ddim"),
        ({"features": "recogniser", "data": "folder:x"}, "glyphs"),
        ({"to_keep": (5, 2)}, "to_keep"),
        ({"to_keep": (1,)}, "n_samples"),
        ({"batch_size": 0}, "batch_size"),
        ({"timing_batch": 0}, "timing_batch"),
        ({"shard": (2, 2)}, "shard"),
    ],
)
def test_a_bad_setting_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(**change)


def test_what_may_change_when_a_run_goes_on_is_not_part_of_its_identity() -> None:
    settings = Settings()
    grown = dataclasses.replace(
        settings, methods=("lgtm-0.7",), classify=7, generate=9, batch_size=3, device="cuda", timing_rounds=1
    )
    assert identity_hash(grown.identity()) == identity_hash(settings.identity())


@pytest.mark.parametrize(
    "change",
    [{"model": "m"}, {"data": "folder:x"}, {"seed": 1}, {"n_samples": (5, 21)}, {"to_keep": (4, 1)}, {"loss": "l1"},
     {"steps": 21}, {"guidance": 2.0}, {"dtype": "bfloat16"}, {"sampler": "ddim"}, {"split": "validation"}],
)  # fmt: skip
def test_what_changes_results_changes_the_identity(change: dict[str, Any]) -> None:
    before, after = Settings().identity(), Settings(**change).identity()
    assert identity_hash(before) != identity_hash(after)
    assert any(phrase.startswith(f"{next(iter(change))} is ") for phrase in differences(before, after))


def test_the_default_split_and_the_same_split_by_name_are_one() -> None:
    assert Settings().identity() == Settings(split="test").identity()


@pytest.mark.parametrize(("grid", "count"), [("demo", 8), ("published", 22), ("full", 32)])
def test_grids_hold_distinct_methods_after_no_compression(grid: str, count: int) -> None:
    assert GRIDS[grid][0] == "none"
    assert len(Settings(methods=GRIDS[grid]).methods) == count
    assert all(parse(spec) for spec in GRIDS[grid][1:])
