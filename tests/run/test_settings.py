"""What a run is to do: reading lists of methods, settings that check themselves, and what identifies results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bigain.diffusion import process, schedule
from bigain.methods.text import split_specs
from bigain.run import settings as settings_module
from bigain.run.files import differences, identity_hash
from bigain.run.settings import DataSettings, EngineSettings, SamplingSettings, Settings


@pytest.mark.parametrize(
    ("texts", "specs"),
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
def test_lists_of_methods_come_apart_between_methods_only(texts: list[str], specs: tuple[str, ...]) -> None:
    assert split_specs(texts) == specs


def test_guidance_that_is_left_out_is_the_models_usual() -> None:
    denoiser: Any = SimpleNamespace(usual_guidance=4.0)
    assert SamplingSettings().resolved(denoiser).guidance == 4.0
    assert SamplingSettings(guidance=2.0).resolved(denoiser).guidance == 2.0
    assert SamplingSettings(steps=3).resolved(denoiser).forwards == 6
    assert SamplingSettings(steps=3, guidance=1.0).forwards == 3


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
        ({"classify": 0, "generate": 0, "timing_rounds": 0}, "timing_rounds must be above 0, not all 0"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"guidance": 0.5}, "guidance must be at least 1, not 0.5"),
        ({"guidance": float("nan")}, "guidance must be at least 1, not nan"),
        ({"loss": "l3"}, "loss must be one of l2, l1, huber, not 'l3'"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, not 'int8'"),
        ({"sampler": "magic"}, "sampler must be one of ddim, euler, not 'magic'"),
        ({"features": "recogniser", "data": "folder:x"}, "features must be inception or none for 'folder:x'"),
        ({"bad_images": "ignore"}, "bad_images must be one of raise, skip, not 'ignore'"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"timing_batch": 0}, "timing_batch must be at least 1, not 0"),
        ({"threads": 100_000}, "threads must be at most .* on this machine, not 100000"),
    ],
)
def test_a_bad_setting_is_named(make_settings: Callable[..., Settings], change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_settings(**change)


@pytest.mark.parametrize(
    ("to_keep", "n_samples", "words"), [((5, 2), (5, 20), "to_keep"), ((1,), (5, 20), "n_samples")]
)
def test_stages_that_cannot_be_are_named(
    make_settings: Callable[..., Settings], to_keep: tuple[int, ...], n_samples: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make_settings(to_keep=to_keep, n_samples=n_samples).classifier.made(26)


@pytest.mark.parametrize("given", [{"workers": 2}, {"address": "auto"}])
def test_what_is_rays_needs_ray(given: dict[str, Any]) -> None:
    assert EngineSettings(engine="ray", **given)
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be left out unless the engine is ray"):
        EngineSettings(**given)


def test_what_may_change_when_a_run_goes_on_is_not_part_of_its_identity(make_settings: Callable[..., Settings]) -> None:
    grown = make_settings(
        methods=("lgtm-0.7",), classify=7, generate=9, batch_size=3, device="cuda", threads=1, timing_rounds=1,
        engine="ray", workers=2,
    )  # fmt: skip
    grown = dataclasses.replace(grown, command="bigain evaluate")
    assert identity_hash(grown.identity()) == identity_hash(Settings().identity())


@pytest.mark.parametrize(
    "change",
    [{"model": "m"}, {"data": "folder:x"}, {"seed": 1}, {"n_samples": (5, 21)}, {"to_keep": (4, 1)}, {"loss": "l1"},
     {"steps": 21}, {"guidance": 2.0}, {"dtype": "bfloat16"}, {"sampler": "ddim"}, {"split": "validation"}],
)  # fmt: skip
def test_what_changes_results_changes_the_identity(
    make_settings: Callable[..., Settings], change: dict[str, Any]
) -> None:
    before, after = Settings().identity(), make_settings(**change).identity()
    assert identity_hash(before) != identity_hash(after)
    assert f"{next(iter(change))} is " in differences(before, after)


def test_the_default_split_and_the_same_split_by_name_are_one(make_settings: Callable[..., Settings]) -> None:
    assert Settings().identity() == make_settings(split="test").identity()


def test_unseen_is_the_validation_split_of_embedded_data_where_none_is_named() -> None:
    assert DataSettings().unseen().split == "validation"
    assert DataSettings(split="test").unseen().split == "test"
    assert DataSettings(data="folder:x").unseen().split is None


def test_the_choices_of_settings_are_those_of_the_classifier() -> None:
    assert settings_module.WEIGHTINGS == process.WEIGHTINGS
    assert settings_module.SPACINGS == schedule.SPACINGS


def test_what_results_depend_on_names_sizes_and_scoring_where_they_are_chosen(
    make_settings: Callable[..., Settings],
) -> None:
    plain = make_settings().identity()
    assert not {"image_size", "frames", "weighting", "spacing"} & set(plain)
    chosen = {"image_size": 64, "frames": 1, "weighting": "epsilon", "spacing": "scheduler"}
    assert make_settings(**chosen).identity() == plain | chosen
