"""``bigain evaluate`` and ``bigain report``: the whole path, killed in the middle and taken up again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

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


def test_a_run_prints_its_table_and_a_report_prints_it_again(
    call: Callable[..., Any], arguments: list[str], tmp_path: Path
) -> None:
    small = [*arguments, "--classify", 3, "--generate", 2, "--timing-rounds", 1, "--timing-batch", 2]
    text = call(*small, "--out", tmp_path / "run").output
    for words in ("No compression", "L-GTM 50%", "ToMe 50%, random per image", "ms per forward", "samples.png"):
        assert words in text
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").glob("*.*") if file.suffix != ".sqlite"}
    again = call("report", tmp_path / "run" / "results.sqlite", "--out", tmp_path / "again").output
    assert again.strip() in text
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()} == before

    exported, readme = tmp_path / "results" / "tiny.json", tmp_path / "README.md"
    call("report", tmp_path / "run" / "results.sqlite", "--export", exported)
    assert exported.read_bytes() == before["results.json"]
    readme.write_text("# Title\n<!-- tiny: begin -->\n<!-- tiny: end -->\n")
    call("report", exported, "--readme", readme, "--out", tmp_path / "pictures")
    assert before["table.md"].decode().strip() in readme.read_text()
    assert (tmp_path / "pictures" / "front.png").read_bytes() == before["front.png"]

    # compared with each other
    shown = call(
        "report", tmp_path / "run" / "results.sqlite", "--against", "lgtm-0.5", "--out", tmp_path / "again"
    ).output
    table = (tmp_path / "again" / "against.md").read_text()
    assert table.startswith("| method | FLOPs | L-GTM 50% (")
    assert "L-GTM 50%: of " in table
    assert "L-GTM 50%: of " in " ".join(shown.split())
    call("report", tmp_path / "run" / "results.sqlite", "--against", "lgtm-0.5", "--export", exported)
    readme.write_text("".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in ("tiny", "tiny-against")))
    call("report", exported, "--readme", readme, "--out", tmp_path / "pictures")
    assert table.strip() in readme.read_text()
    assert (tmp_path / "pictures" / "against.md").read_text() == table
    assert "--against needs the .sqlite file" in call("report", exported, "--against", "lgtm-0.5", fails=True).stderr
    before = exported.read_bytes()
    call("report", tmp_path / "run" / "results.sqlite", "--add-to", exported)
    assert exported.read_bytes() == before, "it has all of that"
    readme.write_text("<!-- tiny: begin -->\n<!-- tiny: end -->\n")
    call("report", tmp_path / "run" / "results.sqlite", "--add-to", exported, "--readme", readme)
    assert "L-GTM 50%" in readme.read_text()
    assert "--add-to needs the .sqlite file" in call("report", exported, "--add-to", exported, fails=True).stderr
    both = ("--add-to", exported, "--export", exported)
    assert "give one of them" in call("report", tmp_path / "run" / "results.sqlite", *both, fails=True).stderr
    call("report", tmp_path / "run" / "results.sqlite", "--out", tmp_path / "again")
    assert not (tmp_path / "again" / "against.md").exists(), "nothing of before is left"

    other = exported.with_name("other.json")
    other.write_text(exported.read_text().replace(arguments[2], "another"))
    exported.with_name("tiny.timings.json").rename(exported.with_name("other.timings.json"))
    readme.write_text("<!-- side-by-side: begin -->\n<!-- side-by-side: end -->\n")
    call("report", exported, "--beside", other, "--readme", readme)
    assert "another: accuracy, %" in readme.read_text()
    assert "ToMe 50%" in readme.read_text()
    shown = call("report", exported, "--beside", other, "--readme", readme, "--methods", "lgtm-0.5").output
    for text in (shown, readme.read_text()):
        assert "No compression" in text
        assert "L-GTM 50%" in text
        assert "ToMe 50%, random" not in text
    assert "--methods has todo-3, not in these results" in call("report", exported, "-m", "todo-3", fails=True).stderr
    assert "say which file" in call("report", exported, "--beside", other, fails=True).stderr


def test_speed_alone(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    sizes = ("--classify", 0, "--generate", 0, "--features", "none", "--timing-rounds", 1, "--timing-batch", 2)
    text = call("evaluate", "--model", tiny_model, "-m", "todo-2", *sizes, "--out", tmp_path / "run").output
    assert "ms per forward, batch 2" in text
    assert "accuracy" not in text
    assert {file.name for file in (tmp_path / "run").glob("*.*")} >= {"results.timings.json", "table.md"}
    again = call("report", tmp_path / "run" / "results.json", "--out", tmp_path / "again").output
    assert "ms per forward, batch 2" in again


def test_two_processes_share_a_run(call: Callable[..., Any], arguments: list[str], tmp_path: Path) -> None:
    shared = [sys.executable, "-m", "bigain", *arguments, "--out", tmp_path / "shared", "--shard"]
    processes = [subprocess.Popen([*shared, share], stdout=subprocess.PIPE, text=True) for share in ("1/2", "2/2")]
    for process in processes:
        assert "run again without --shard" in process.communicate()[0]
        assert process.returncode == 0
    assert rows(tmp_path / "shared" / "results.sqlite") == [COUNTS[0] * COUNTS[2], COUNTS[1] * COUNTS[2]]
    call(*arguments, "--out", tmp_path / "shared")
    call(*arguments, "--out", tmp_path / "whole")
    for name in ("results.json", "results.csv", "samples.png", "table.md"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_methods_are_compared_at_equal_flops(call: Callable[..., Any], tiny_model: str, tmp_path: Path) -> None:
    sizes = "--classify 1 --generate 0 --to-keep 1 --n-samples 1 --features none --timing-rounds 0 --quiet"
    asked = ["--methods", "none tome abm", "--equal-flops", "todo-2", "--equal-flops", "tome-0.3"]
    text = call("evaluate", "--model", tiny_model, *sizes.split(), *asked, "--out", tmp_path / "run").output
    assert "At the FLOPs of todo:factor=2: tome:ratio=" in text
    with sqlite3.connect(tmp_path / "run" / "results.sqlite") as connection:
        flops = dict(connection.execute("SELECT spec, flops FROM method ORDER BY position"))
    specs = list(flops)
    assert specs[1] == "todo:factor=2"
    assert specs[4] == "tome:ratio=0.3"
    for reference, others in ((1, (2, 3)), (4, (5, 6))):
        for other in others:
            assert 0.9 * flops[specs[reference]] < flops[specs[other]] <= flops[specs[reference]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--methods", "bogus-1"], "unknown method or preset 'bogus-1'"),
        (["--preset-grid", "huge"], "--preset-grid must be one of demo, published, full, not 'huge'"),
        (["--to-keep", "five"], "--to-keep must be whole numbers"),
        (["--methods", "lgtm-0.9"], "at most 48"),
        (["--data", "folder:/nowhere"], "/nowhere"),
        (["--model", "/nowhere/model"], "/nowhere/model"),
        (["--guidance", "inf"], "guidance must be finite"),
        (["--bad-images", "ignore"], "on_bad_image"),
        (["--equal-flops", "todo-9"], "give larger cells, more levels or layers"),
        (["--equal-flops", ""], "one other whose FLOPs are the measure"),
        (["--equal-flops", "todo-2", "--loss", "l3"], "loss must be one of"),
        (["--equal-flops", "todo-2", "--preset-grid", "demo"], "takes the methods of --methods and --preset, not a"),
        (["--shard", "3/2"], "--shard must be I/N with I from 1 to N"),
        (["--shard", "half"], "such as 2/4, not 'half'"),
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
