"""``bigain evaluate`` and ``bigain report``: the whole path, killed in the middle and taken up again."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bigain.run import engine
from bigain.run.settings import ClassifierSettings, CountSettings, Settings
from bigain.run.store import Store

COUNTS = (12, 6, 3)  # classified and generated per method, and methods


@pytest.fixture
def arguments(tiny_model: str) -> list[str]:
    """A run of some seconds."""
    text = "--methods lgtm-0.5,tome:ratio=0.5,destinations=random --features none --timing-rounds 0 --quiet --threads 1"
    sizes = f"--classify {COUNTS[0]} --generate {COUNTS[1]} --to-keep 2,1 --n-samples 2,4 --steps 4 --batch-size 2"
    return ["evaluate", "--model", tiny_model, *text.split(), *sizes.split()]


@pytest.fixture(autouse=True)
def _threads() -> object:
    """The commands set PyTorch's threads: put them back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rows(path: Path) -> list[int]:
    """How many images are classified and generated; none before the file is there."""
    if not path.exists():
        return [0, 0]
    with sqlite3.connect(path) as connection:
        return [connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("classification", "generation")]


@pytest.mark.parametrize("moment", ["classifying", "generating"])
def test_a_killed_run_ends_with_the_same_files_as_an_undisturbed_one(
    call: Callable[..., Any], arguments: list[str], tmp_path: Path, moment: str
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    classified, generated, methods = COUNTS
    process = subprocess.Popen([sys.executable, "-m", "bigain", *arguments, "--out", killed])
    wanted = [2, 0] if moment == "classifying" else [classified + 1, generated]
    while process.poll() is None and any(a < b for a, b in zip(rows(killed / "results.sqlite"), wanted, strict=True)):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    have = rows(killed / "results.sqlite")
    assert 0 < sum(have) < (classified + generated) * methods
    assert not (killed / "results.json").exists()
    call(*arguments, "--out", killed)
    call(*arguments, "--out", whole)
    assert rows(killed / "results.sqlite") == [classified * methods, generated * methods]
    for name in ("results.json", "results.csv", "samples.png", "table.md"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.fixture
def done(call: Callable[..., Any], arguments: list[str], tmp_path: Path) -> tuple[Path, str]:
    """The folder of a small run that is done, and what it printed."""
    small = [*arguments, "--classify", 3, "--generate", 2, "--timing-rounds", 1, "--timing-batch", 2]
    text = call(*small, "--out", tmp_path / "run").output
    return tmp_path / "run", text


def test_a_run_prints_its_table(done: tuple[Path, str]) -> None:
    for words in ("No compression", "L-GTM 50%", "ToMe 50%, random per image", "ms per forward", "samples.png"):
        assert words in done[1]


def test_a_run_keeps_the_command_that_would_repeat_it(done: tuple[Path, str], arguments: list[str]) -> None:
    with Store(done[0] / "results.sqlite") as store:
        [command] = store.commands()
    assert command.startswith("bigain evaluate --methods ")
    assert f"--model {arguments[2]}" in command
    for words, kept in (("--generate 2", True), ("--timing-batch 2", True), ("--out", False), ("--quiet", False)):
        assert (words in command) == kept


def test_a_report_prints_and_draws_a_run_again(
    call: Callable[..., Any], done: tuple[Path, str], tmp_path: Path
) -> None:
    folder, text = done
    before = {file.name: file.read_bytes() for file in folder.glob("*.*") if file.suffix != ".sqlite"}
    again = call("report", folder / "results.sqlite", "--out", tmp_path / "again").output
    assert again.strip() in text
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == before


def test_what_is_exported_is_reported_like_the_run(
    call: Callable[..., Any], done: tuple[Path, str], tmp_path: Path
) -> None:
    folder, text = done
    exported = tmp_path / "results" / "tiny.json"
    call("report", folder / "results.sqlite", "--export", exported)
    assert exported.read_bytes() == (folder / "results.json").read_bytes()
    assert call("report", exported, "--out", tmp_path / "pictures").output.strip() in text
    for name in ("table.md", "front.png"):
        assert (tmp_path / "pictures" / name).read_bytes() == (folder / name).read_bytes()


def test_a_report_shows_some_methods_and_what_they_are_compared_with(
    call: Callable[..., Any], done: tuple[Path, str]
) -> None:
    shown = call("report", done[0] / "results.json", "-m", "lgtm-0.5").output
    for words, there in (("No compression", True), ("L-GTM 50%", True), ("ToMe 50%, random", False)):
        assert (words in shown) == there


def test_a_report_says_that_no_compression_is_missing_and_compares_with_no_other(
    call: Callable[..., Any], done: tuple[Path, str], tmp_path: Path
) -> None:
    path = tmp_path / "results.json"
    content = json.loads((done[0] / "results.json").read_text())
    content["rows"] = [
        row | dict.fromkeys(("change", "change_low", "change_high", "mcnemar_p", "flops_change", "psnr"))
        for row in content["rows"]
        if row["method"] != "none"
    ]
    path.write_text(json.dumps(content))
    times = json.loads((done[0] / "results.timings.json").read_text())
    times["methods"].pop("none")
    path.with_suffix(".timings.json").write_text(json.dumps(times))
    text = " ".join(call("report", path, "--out", tmp_path / "out").output.split())
    assert "No compression (none) was not measured, so there is nothing to compare the methods with." in text
    assert "×)" not in text, "no speed, as none is the reference"
    assert "change, points" not in text
    assert "was not measured" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("-m", "todo-3"), "--methods must be among those of these results, none"),
        (("--export", "other.json"), "--export must be left out for "),
        (("--export", "other.csv"), "--export must end in .json or .parquet, not other.csv"),
    ],
)
def test_a_report_that_cannot_be_is_refused(
    call: Callable[..., Any], done: tuple[Path, str], more: tuple[str, ...], words: str
) -> None:
    assert words in call("report", done[0] / "results.json", *more, fails=True).stderr


def settings_of(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any], *arguments: object) -> Settings:
    """The settings with which ``bigain evaluate`` would run."""

    class HeardError(Exception):
        pass

    def hear(settings: Settings, *_: Any, **__: Any) -> None:
        raise HeardError(settings)

    monkeypatch.setattr(engine, "run", hear)
    with pytest.raises(HeardError) as heard:
        call("evaluate", *arguments)
    return heard.value.args[0]


def test_alone_it_runs_the_demo(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]) -> None:
    alone = settings_of(monkeypatch, call)
    assert alone == settings_of(monkeypatch, call, "--config", "demo")
    assert len(alone.methods) == 8
    assert (alone.counts.classify, alone.classifier.to_keep, alone.classifier.n_samples) == (25, (3, 1), (2, 6))
    assert settings_of(monkeypatch, call, "--model", "glyphs-sd").methods == alone.methods


def test_with_methods_of_its_own_it_runs_no_demo(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]) -> None:
    for flags in (("-m", "todo-2"), ("--preset", "balanced")):
        settings = settings_of(monkeypatch, call, *flags)
        assert settings.counts == CountSettings()
        assert len(settings.methods) == 2


def test_a_preset_is_added_to_the_methods(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]) -> None:
    settings = settings_of(monkeypatch, call, "--config", "demo", "--preset", "balanced", "--preset", "fast")
    assert len(settings.methods) == 8 + 2
    assert settings.presets == ("glyphs-dit/balanced", "glyphs-dit/fast")


CONFIG = """
methods = ["lgtm-0.5", "tome:ratio=0.5,cell=4x4"]
preset = "balanced"
classify = 7
to_keep = [4, 1]
n_samples = "2 8"
guidance = 2.5
out = "somewhere"
quiet = true
"""


def test_a_file_gives_flags_and_flags_win(
    monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CONFIG)
    settings = settings_of(monkeypatch, call, "--config", path)
    assert settings.methods[:3] == ("none", "lgtm:ratio=0.5", "tome:ratio=0.5,cell=4x4")
    assert len(settings.methods) == 4
    assert (settings.counts.classify, settings.sampling.guidance, settings.counts.generate) == (7, 2.5, 100)
    assert settings.classifier == ClassifierSettings(to_keep=(4, 1), n_samples=(2, 8))
    assert settings.command == f"bigain evaluate --config {path}"
    changed = settings_of(monkeypatch, call, "--config", path, "--classify", 9, "-m", "todo-2", "--out", "x", "-q")
    assert changed.methods[:2] == ("none", "todo:factor=2")
    assert changed.counts.classify == 9
    assert changed.classifier == settings.classifier
    assert changed.command == f"bigain evaluate --config {path} --methods todo-2 --classify 9"


def test_the_command_that_is_kept_makes_the_same_settings(
    monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    given = ["-m", "lgtm-0.5 todo-2", "-m", "iekvd:factor=2,alpha=0.8>1.2", "--to-keep", "2 1", "--seed", 3]
    settings = settings_of(monkeypatch, call, *given, "--engine", "ray", "--workers", 2, "--out", "x")
    assert settings.command is not None
    program, name, *arguments = shlex.split(settings.command)
    assert (program, name) == ("bigain", "evaluate")
    again = settings_of(monkeypatch, call, *arguments, "--engine", "ray", "--workers", 2)
    assert again == settings
    assert again.command == settings.command
    assert again.identity() == replace(settings, command=None).identity()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clasify = 3", "must be the name of a flag, not 'clasify': classify?"),
        ("config = 'demo'", "must be the name of a flag, not 'config'"),
        ("to-keep = [3, 1]", "not 'to-keep': to_keep?"),
        ("[run]\nclassify = 3", "must be the name of a flag, not 'run'"),
        ("[classify]\nx = 3", "--classify in CONFIG must be a value, not {'x': 3}"),
        ("classify = true", "--classify in CONFIG must be a value, not True"),
        ("quiet = 1", "--quiet in CONFIG must be true or false, not 1"),
        ("classify = ", "--config must be a file of TOML"),
        ("dtype = 'int8'", "--dtype must be one of float32, bfloat16, float16, not 'int8'"),
        ("to_keep = ['a']", "--to-keep must be whole numbers"),
        ("methods = []", "--methods in CONFIG must have at least one value, not []"),
        ("methods = ['']", "--methods must name at least one method"),
    ],
)
def test_a_file_with_a_fault_is_refused(call: Callable[..., Any], tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    result = call("evaluate", "--config", path, fails=True)
    assert words.replace("CONFIG", str(path)) in result.stderr
    assert result.exit_code == 1


def test_a_file_that_does_not_exist_is_refused(call: Callable[..., Any]) -> None:
    words = "--config must be demo, or a file that exists, not 'dmeo'"
    assert words in call("evaluate", "--config", "dmeo", fails=True).stderr


def test_speed_alone(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    sizes = ("--classify", 0, "--generate", 0, "--features", "none", "--timing-rounds", 1, "--timing-batch", 2)
    text = call("evaluate", "--model", tiny_model, "-m", "todo-2", *sizes, "--out", tmp_path / "run").output
    assert "ms per forward, batch 2" in text
    assert "accuracy" not in text
    assert {file.name for file in (tmp_path / "run").glob("*.*")} >= {"results.timings.json", "table.md"}
    again = call("report", tmp_path / "run" / "results.json", "--out", tmp_path / "again").output
    assert "ms per forward, batch 2" in again


def test_methods_are_compared_at_equal_flops_besides(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    sizes = "--classify 1 --generate 0 --to-keep 1 --n-samples 1 --features none --timing-rounds 0 --quiet"
    asked = ["--methods", "none tome-0.2 tome-0.4 abm", "--equal-flops", "todo-2", "--equal-flops", "tome-0.3"]
    text = call("evaluate", "--model", tiny_model, *sizes.split(), *asked, "--out", tmp_path / "run").output
    line = next(line for line in text.splitlines() if line.startswith("At the FLOPs of todo:factor=2: "))
    assert len(line.partition("2: ")[2].split()) == 2, "ToMe once, though it is given at two strengths"
    with sqlite3.connect(tmp_path / "run" / "results.sqlite") as connection:
        flops = dict(connection.execute("SELECT spec, flops FROM method ORDER BY position"))
    specs = list(flops)
    assert specs[:4] == ["none", "tome:ratio=0.2", "tome:ratio=0.4", "abm:ratio=0.5"]
    assert specs[4] == "todo:factor=2"
    assert specs[7] == "tome:ratio=0.3"
    for reference, others in ((4, (5, 6)), (7, (8,))):
        for other in others:
            assert 0.9 * flops[specs[reference]] < flops[specs[other]] <= flops[specs[reference]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--methods", "bogus-1"], "not 'bogus-1'"),
        (["--to-keep", "five"], "--to-keep must be whole numbers"),
        (["--methods", "lgtm-0.9"], "ratio must be at most 0.75"),
        (["--data", "folder:/nowhere"], "/nowhere"),
        (["--model", "/nowhere/model"], "/nowhere/model"),
        (["--guidance", "inf"], "--guidance must be at least 1, not inf"),
        (["--bad-images", "ignore"], "--bad-images must be one of raise, skip, not 'ignore'"),
        (["--equal-flops", "todo-8"], "give larger cells, more levels or layers"),
        (["--equal-flops", ""], "--equal-flops must name at least one method"),
        (["--equal-flops", "todo-2", "--loss", "l3"], "--loss must be one of"),
        (["--workers", "2"], "--workers must be left out unless the engine is ray (--engine ray)"),
        (["--engine", "dask"], "--engine must be one of local, ray, not 'dask'"),
    ],
)
def test_bad_input_is_named(
    call: Callable[..., Any], arguments: list[str], tmp_path: Path, more: list[str], words: str
) -> None:
    result = call(*arguments, "--out", tmp_path / "run", *more, fails=True)
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_results_file_of_other_settings_is_named_with_the_fields(
    call: Callable[..., Any], arguments: list[str], tmp_path: Path
) -> None:
    small = [*arguments, "--classify", 1, "--generate", 0, "--out", tmp_path / "run"]
    call(*small)
    result = call(*small, "--seed", 5, "--loss", "l1", fails=True)
    assert "seed is 0 there and 5 here" in result.stderr
    assert 'loss is "l2" there and "l1" here' in result.stderr


@pytest.mark.parametrize("name", ["results.sqlite", "results.json"])
def test_a_report_of_nothing_is_refused(call: Callable[..., Any], tmp_path: Path, name: str) -> None:
    assert name in call("report", tmp_path / name, fails=True).stderr
