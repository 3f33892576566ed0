"""``bigain allocate``, and the preset that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bigain
from bigain.diffusion import open_model
from bigain.methods import parse, spec
from bigain.run.cost import flops
from bigain.run.store import Store
from bigain.search import choice, clock
from bigain.search.clock import Clocked
from bigain.search.knapsack import most_saved
from bigain.search.measuring import read_record
from bigain.search.offers import CONTRAST_WEIGHT

SMALL = (
    "--images",
    2,
    "--timesteps",
    1,
    "--quiet",
    "--split",
    "test",
    "--candidates",
    "todo-2 tome:ratio=0.5,cell=4x4",
)


def test_the_preset_saves_what_was_asked_for_and_is_taken_everywhere(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path, families: Any
) -> None:
    denoiser = open_model(tiny_model)
    plain = flops(denoiser, "none", 0)
    call("allocate", "--save", 0.001, "--model", tiny_model, *SMALL, "--out", tmp_path)
    most = most_saved(read_record(tmp_path / "offers.json").offers().offers) / plain
    written = []
    for save in (most / 4, most * 0.9):
        text = call("allocate", "--save", save, "--model", tiny_model, *SMALL, "--out", tmp_path).output
        content = json.loads((tmp_path / "preset.json").read_text())
        assert content["methods"] in " ".join(text.split())
        assert content["saved"] == pytest.approx(1 - flops(denoiser, content["methods"], 0) / plain, abs=1e-3)
        assert content["saved"] >= save - 1e-4
        written.append(content["methods"])
    assert written[0] != written[1]
    preset = tmp_path / "preset.json"
    with bigain.compressed(families["dit"].build(), preset) as handle:
        assert spec(handle.methods) == written[1]


def test_the_weight_of_the_contrast_is_the_librarys_or_as_asked_for(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    contents = []
    for options in ((), ("--contrast", 0)):
        call("allocate", "--save", 0.02, *options, "--model", tiny_model, *SMALL, "--out", tmp_path)
        contents.append(json.loads((tmp_path / "preset.json").read_text()))
    assert [content["contrast_weight"] for content in contents] == [CONTRAST_WEIGHT, 0]
    assert contents[1]["change"] <= contents[0]["change"]
    assert all(content["contrast"] > 0 for content in contents)


def test_layers_choose_in_each_range_by_the_timesteps_of_the_use(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    denoiser = open_model(tiny_model)
    record, plain = None, flops(denoiser, "none", 0)
    run = ("allocate", "--save", 0.03, "--ranges", "0 275 1000", "--model", tiny_model, *SMALL, "--timesteps", 2)
    for use, share in (("classify", 6 / 20), ("generate", 5 / 20), ("both", 11 / 40)):  # at 25, 75, … and 49, 99, …
        output = call(*run, "--for", use, "--out", tmp_path).output
        content = json.loads((tmp_path / "preset.json").read_text())
        assert content["for"] == use
        assert content["ranges"] == pytest.approx({"0-275": share, "275-1000": 1 - share})
        assert content["together"]["change"] > 0
        assert record in (None, read_record(tmp_path / "offers.json").measured), "measured once"
        record = read_record(tmp_path / "offers.json").measured
        methods = parse(content["methods"])
        saved = sum(
            weight * (1 - flops(denoiser, [replace(one, timesteps=None) for one in acting], 0) / plain)
            for t, weight in ((100, share), (900, 1 - share))
            if (acting := [one for one in methods if one.acts_at(t)])
        )
        assert content["saved"] == pytest.approx(saved, abs=1e-3)
        assert content["saved"] >= 0.03 - 1e-4
        assert "timesteps" in output
        assert "measured together" in output
        with bigain.compressed(denoiser.model, tmp_path / "preset.json"):
            pass


def test_measured_one_by_one_or_estimated_are_told_apart(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    run = ("allocate", "--save", 0.02, "--model", tiny_model, *SMALL)
    call(*run, "--exact", "--out", tmp_path / "exact")
    call(*run, "--out", tmp_path / "estimated")
    exact, estimated = (read_record(tmp_path / name / "offers.json") for name in ("exact", "estimated"))
    for one, other in zip(exact.measured, estimated.measured, strict=True):
        assert (one.method, one.saved) == (other.method, other.saved)
        assert other.change[0] == pytest.approx(one.change[0], rel=0.9)
        assert other.change != one.change
    assert (
        "exact is false there and true here"
        in call(*run, "--exact", "--out", tmp_path / "estimated", fails=True).stderr
    )
    assert "--for must be one of classify, generate, both, not 'draw'" in call(*run, "--for", "draw", fails=True).stderr


def test_as_much_is_saved_as_keeps_accuracy_and_images(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    run = ("allocate", "--lose-at-most", 100, "--psnr", 1, "--classify", 4, "--generate", 2, "--model", tiny_model)
    output = " ".join(call(*run, *SMALL, "--out", tmp_path).output.split())
    content = json.loads((tmp_path / "preset.json").read_text())
    assert content["targets"] == {"lose_at_most": 100, "psnr": 1}
    offers = read_record(tmp_path / "offers.json").offers()
    assert content["saved"] == pytest.approx(most_saved(offers.offers) / offers.flops, abs=1e-4)
    assert (content["measured"]["classified"], content["measured"]["generated"]) == (4, 2)
    assert content["measured"]["psnr"]["value"] >= 1
    with Store(tmp_path / "results.sqlite") as store:
        assert content["methods"] in store.methods()
    assert output.count("yes") == 6
    assert "keeps the target" in output
    assert "preset.json, offers.json, results.sqlite" in output


def test_a_target_that_nothing_keeps_is_refused(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    run = ("allocate", "--psnr", 200, "--generate", 2, "--model", tiny_model, *SMALL, "--out", tmp_path)
    stderr = " ".join(call(*run, fails=True).stderr.split())
    assert "Error: --psnr must be at most" in stderr
    assert "already the least saving" in stderr
    assert not (tmp_path / "preset.json").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ((), "the target must be one of save"),
        (("--save", 0.1, "--psnr", 25), "not save and psnr"),
        (("--save", 0.1, "--speed-up", 1.2), "not save and speed_up"),
        (("--speed-up", 1), "--speed-up must be above 1, not 1"),
        (("--save", 1.5), "--save must lie between 0 and 1, not 1.5"),
        (("--save", 0.99), "--save must be at most 0."),
    ],
)
def test_what_cannot_be_allocated_is_refused(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path, target: tuple[Any, ...], words: str
) -> None:
    result = call("allocate", *target, "--model", tiny_model, *SMALL, "--out", tmp_path, fails=True)
    assert words in result.stderr
    assert not (tmp_path / "preset.json").exists()


@pytest.mark.parametrize(("milliseconds", "measured", "short"), [(2.0, 1.5, False), (2.8, 1.0714, True)])
def test_the_target_may_be_a_speed_up_on_this_machine(
    call: Callable[..., Any],
    tiny_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    milliseconds: float,
    measured: float,
    short: bool,
) -> None:
    denoiser, text, given = open_model(tiny_model), spec(parse("todo:factor=2,layers=1")), {}

    def clocked(_: Any, offers: Any, path: Path, **settings: Any) -> Clocked:
        given.update(settings, path=path)
        saved = {offer.method: 0.1 * (1 + offer.layer) for offer in offers}
        return Clocked({"batch_size": 3}, 7, 1.0, saved)

    monkeypatch.setattr(choice, "clock_offers", clocked)
    monkeypatch.setattr(clock, "measure", lambda *_, **__: {"none": [3.0], text: [milliseconds]})
    run = ("allocate", "--speed-up", 1.2, "--batch-size", 3, "--timing-rounds", 2, "--model", tiny_model, *SMALL[:-1])
    output = " ".join(call(*run, "todo-2", "--out", tmp_path).output.split())
    content = json.loads((tmp_path / "preset.json").read_text())
    assert content["methods"] == text
    assert content["speed_up"] == {"asked": 1.2, "expected": 1.25, "measured": measured, "batch_size": 3}
    assert content["saved"] == pytest.approx(1 - flops(denoiser, text, 0) / flops(denoiser, "none", 0), abs=1e-4)
    assert given.pop("counted") is not None
    assert given == {"path": tmp_path / "times.json", "dtype": "float32", "batch_size": 3, "rounds": 2}
    assert f"{measured:.2f}x as measured together, 1.25x by the layers alone, 1.20x asked for" in output
    assert "time saved, %" in output
    assert ("That is less than was asked for" in output) == short


def test_times_that_do_not_compare_are_refused_before_anything_is_measured(
    call: Callable[..., Any], tiny_model: str, tmp_path: Path
) -> None:
    (tmp_path / "times.json").write_text("[]")
    result = call("allocate", "--speed-up", 1.2, "--model", tiny_model, *SMALL, "--out", tmp_path, fails=True)
    assert "times.json must hold a JSON object of format 'bigain offer timings 1'" in " ".join(result.stderr.split())
    assert not (tmp_path / "offers.json").exists()
