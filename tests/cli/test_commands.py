"""The command line as a whole: help, errors, and starting it."""

from __future__ import annotations

import functools
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import bigain
from bigain.cli import app, options
from bigain.cli.command import Command, show_tracebacks
from bigain.run.settings import Group, ModelSettings, ProbeSettings, setting

COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
MOST_FLAGS = 198
RUN = [sys.executable, "-m", "bigain"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(call: Callable[..., Any], command: str) -> None:
    for flag in ("--help", "-h"):
        text = call(command, flag).output
        assert "Examples" in text
        assert f"bigain {command}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_of_the_examples_exist(command: str) -> None:
    flags = {flag for param in COMMANDS[command].params for flag in (*param.opts, *param.secondary_opts)}
    examples = COMMANDS[command].help.partition("Examples")[2].split("\n\n")
    own = [example for example in examples if example.strip().startswith(f"bigain {command}")]
    assert own
    used = {word for example in own for word in example.split() if word.startswith("-") and word != "-"}
    assert used <= flags


def test_there_are_few_flags_and_one_name_for_methods() -> None:
    flags = [flag for command in COMMANDS.values() for param in command.params for flag in param.opts]
    long = [flag for flag in flags if flag.startswith("--")]
    of_all = 3  # --traceback, --version and --help
    assert of_all + len(long) + len(COMMANDS) <= MOST_FLAGS  # each command has a --help too
    assert "--method" not in long
    assert long.count("--methods") == flags.count("-m")


def test_the_room_lists_all_commands() -> None:
    import bigain.cli

    assert bigain.cli.__doc__ is not None
    for command in COMMANDS:
        assert command in bigain.cli.__doc__


WITHOUT_A_MODEL = [
    ["--help"],
    ["evaluate", "--help"],
    ["methods"],
    ["methods", "lgtm"],
    ["models"],
    ["bound", "--help"],
    ["bound", "flux1-dev"],
    ["evaluate", "-m", "lgmt-0.5"],
    ["generate", "A", "-m", "lgmt-0.5"],
    ["evaluate", "--config", "nowhere.toml"],
    ["report", "RESULTS"],
]


@pytest.mark.parametrize("arguments", WITHOUT_A_MODEL, ids=" ".join)
def test_what_needs_no_model_does_not_wait_for_pytorch(arguments: list[str]) -> None:
    results = str(Path(__file__).parents[2] / "results" / "glyphs-dit.json")
    given = [results if word == "RESULTS" else word for word in arguments]
    code = f"""
import sys
from bigain.cli import main
sys.argv = ["bigain", *{given!r}]
try:
    main()
finally:
    loaded = [name for name in ("torch", "diffusers", "transformers", "matplotlib") if name in sys.modules]
    print("loaded:", *loaded, file=sys.stderr)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.stderr.splitlines()[-1] == "loaded:", process.stderr


def test_the_version_is_the_packages(call: Callable[..., Any]) -> None:
    assert call("--version").output.strip() == f"bigain {bigain.__version__}"


def test_an_error_is_one_line_and_a_status(call: Callable[..., Any]) -> None:
    result = call("methods", "lgmt", fails=True)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: name must be one of lgtm,")
    assert result.stderr.endswith("not 'lgmt'; did you mean 'lgtm'?\n")


def test_a_traceback_is_there_on_demand(call: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="name must be one of"):
        call("--traceback", "methods", "bogus")


class OutOfMemoryError(RuntimeError):
    """As PyTorch's is called."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("batch_size must be even, not 7"), "Error: --batch-size must be even, not 7\n"),
        (ValueError("--batch-size must be even, not 7"), "Error: --batch-size must be even, not 7\n"),
        (ValueError("the model's images must be square"), "Error: the model's images must be square\n"),
        (OSError("no space"), "Error: no space\n"),
        (ImportError("no module"), "Error: no module\n"),
        (FloatingPointError("NaN"), "Error: NaN\n"),
        (sqlite3.OperationalError("disk is full"), "Error: disk is full\n"),
        (zlib.error("incorrect header"), "Error: incorrect header\n"),
        (RecursionError(), "Error: RecursionError\n"),
        (OutOfMemoryError("CUDA out of memory"), "Error: --batch-size must be below 48 for the memory of this device"),
        (MemoryError(), "give --batch-size 24\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "give --batch-size 24\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error: Exception, words: str) -> None:
    def command(model: ModelSettings, seed: int = 0) -> None:
        raise error

    result = run(command, "--batch-size", "48")
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_a_user_cannot_mend_stays_a_traceback() -> None:
    def command(model: ModelSettings, seed: int = 0) -> None:
        raise RuntimeError("a fault of ours")

    assert isinstance(run(command).exception, RuntimeError)


@pytest.fixture
def application(tiny_model: str, tmp_path: Path) -> list[str]:
    """A run of many seconds."""
    sizes = "--classify 5000 --generate 0 --to-keep 2,1 --n-samples 50,100 --batch-size 8 --timing-rounds 0"
    small = f"-q -m todo-2 --features none {sizes}"
    return [*RUN, "evaluate", "--model", tiny_model, *small.split(), "--out", str(tmp_path / "run")]


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(application: list[str], tmp_path: Path) -> None:
    # A shell has its background jobs ignore Ctrl-C, and what they start inherits that.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(application, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    try:
        path, limit = tmp_path / "run" / "results.sqlite", time.monotonic() + 120
        while not _has_rows(path) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith("Stopped. What is done is kept; to go on: bigain evaluate --model ")
    assert last.endswith(f"--out {tmp_path / 'run'}")


def _has_rows(path: Path) -> bool:
    if not path.exists():
        return False
    with sqlite3.connect(path) as connection:
        try:
            return connection.execute("SELECT count(*) FROM classification").fetchone()[0] > 0
        except sqlite3.OperationalError:  # not made yet
            return False


@pytest.mark.parametrize("device", ["bogus", "meta", "mps"])
def test_a_device_that_cannot_be_used_is_named(call: Callable[..., Any], device: str) -> None:
    stderr = call("generate", "A", "--device", device, fails=True).stderr
    assert stderr.startswith("Error: --device must be one that PyTorch can use here (cpu")
    assert stderr.endswith(f"not '{device}'\n")


@pytest.mark.parametrize("model", ["glyphs-sd", "glyphs-video"])
def test_quiet_writes_nothing_beside_what_was_asked_for(tmp_path: Path, model: str) -> None:
    run = [*RUN, "generate", "a letter A", "--model", model, "--steps", "1", "--count", "1", "-q"]
    process = subprocess.run([*run, "--out", str(tmp_path)], capture_output=True, text=True, check=True)
    assert process.stderr == ""
    assert process.stdout.count("\n") == 1


def test_a_warning_of_ours_is_one_line(tmp_path: Path) -> None:
    run = [*RUN, "generate", "the letter A", "-m", "glyphs-sd/fast", "--steps", "1", "--count", "1", "-q", "--out"]
    run += [str(tmp_path), "--model", "glyphs-sd"]
    process = subprocess.run(run, capture_output=True, text=True, check=True)
    assert process.stderr.startswith("Warning: preset glyphs-sd/fast was chosen for something else: its dtype was")
    assert process.stderr.count("\n") == 1


def test_more_threads_than_the_system_gives_are_refused(call: Callable[..., Any]) -> None:
    result = call("evaluate", "--threads", 100_000, fails=True)
    assert "Error: --threads must be at most " in result.stderr
    assert result.stderr.endswith("not 100000\n")


@pytest.mark.parametrize(
    "arguments",
    [("evaluate",), ("generate", "A"), ("classify", "."), ("inspect",), ("analyse",), ("allocate", "--candidates")],
)
def test_no_methods_at_all_are_refused(call: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    last = () if arguments[-1] == "--candidates" else ("-m",)
    more = ("--save", 0.1) if arguments[0] == "allocate" else ()
    stderr = call(arguments[0], *more, *arguments[1:], *last, " ", fails=True).stderr
    assert "must name at least one method" in stderr


def test_methods_are_listed_with_presets(call: Callable[..., Any]) -> None:
    text = call("methods").output
    for words in ("LaplacianMerging", "lgtm-0.7", "todo-4", "glyphs-dit/balanced"):
        assert words in text


def test_one_method_is_shown_with_its_fields(call: Callable[..., Any]) -> None:
    text = call("methods", "tome").output
    for words in ("ToMe", "redraw = 'image'", "ratio = 0.5", "proportional attention"):
        assert words in text


@pytest.mark.parametrize(
    ("model", "name"),
    [("glyphs-sd", "glyphs-sd"), ("stabilityai/stable-diffusion-2-base", "stable-diffusion-2-base"), ("a/b/", "b")],
)
def test_runs_of_two_models_do_not_share_a_folder(model: str, name: str) -> None:
    assert options.folder(None, "evaluate", model) == Path("runs", "evaluate", name)
    assert options.folder(Path("mine"), "evaluate", model) == Path("mine")


@pytest.mark.parametrize("model", [".", "..", "../..", "../model/", "below/.."])
def test_a_model_that_is_a_folder_is_named_by_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str) -> None:
    place = tmp_path / "over" / "model"
    (place / "below").mkdir(parents=True)
    monkeypatch.chdir(place)
    name = {"..": "over", "../..": tmp_path.name}.get(model, "model")
    assert options.folder(None, "analyse", model) == Path("runs", "analyse", name)


def test_a_preset_is_a_name_that_was_measured_for_the_model_or_a_file(tmp_path: Path) -> None:
    assert options.preset_of("balanced", "glyphs-sd") == "glyphs-sd/balanced"
    assert options.preset_of("glyphs-dit/fast", "anything") == "glyphs-dit/fast"
    assert options.preset_of("runs/p.json", "anything") == "runs/p.json"
    file = tmp_path / "p.json"
    file.write_text('{"format": "bigain preset 1", "methods": "todo-2"}')
    read = options.read_methods([f"{file} lgtm-0.5"])
    assert [one.text for one in read] == ["todo:factor=2", "lgtm:ratio=0.5"]
    with pytest.raises(ValueError, match=r"measured, glyphs-dit, .*, glyphs-video, not 'anything'"):
        options.preset_of("balanced", "anything")
    with pytest.raises(ValueError, match="must be one of quality, balanced, fast, not 'best'"):
        options.preset_of("best", "glyphs-sd")


@dataclass(frozen=True, kw_only=True)
class SizeSettings(Group):
    """A group with a field of each kind."""

    width: int = setting(3, "How wide.", low=1)
    sides: tuple[int, ...] = setting((5, 1), "Of all.")
    names: tuple[str, ...] = setting(("none",), "Of all.", short="-n")
    colour: str | None = setting(None, "Of paint.", choices=("red", "blue"))
    hidden: int = 7


def run(command: Callable[..., None], *arguments: str) -> Any:
    """Calls a command of its own."""
    show_tracebacks.set(False)
    single = typer.Typer(pretty_exceptions_enable=False)
    single.command(cls=Command)(options.grouped(command))
    return CliRunner().invoke(single, arguments)


def test_a_group_becomes_options_and_comes_back_together() -> None:
    heard: list[tuple[SizeSettings, int]] = []

    def command(sizes: SizeSettings, count: int = 2) -> None:
        heard.append((sizes, count))

    assert run(command).exception is None
    given = "--width 4 --sides 7,2 -n lgtm-0.5 -n todo-2,abm-0.3 --colour red --count 9"
    assert run(command, *given.split()).exception is None
    names = ("lgtm-0.5", "todo-2", "abm-0.3")
    assert heard == [
        (SizeSettings(), 2),
        (SizeSettings(width=4, sides=(7, 2), names=names, colour="red"), 9),
    ]


def test_the_help_of_a_group_has_its_panel_range_choices_and_defaults() -> None:
    def command(sizes: SizeSettings) -> None: ...

    text = run(command, "--help").output
    for words in ("Size", "x>=1", "red|blue", "[default: 5 1]", "How wide.", "-n"):
        assert words in text
    assert "--hidden" not in text


def test_a_command_may_change_defaults_and_leave_fields_out() -> None:
    heard: list[ProbeSettings] = []
    larger = ProbeSettings(images=32, seed=5)

    def command(probe: Annotated[ProbeSettings, options.Without("seed")] = larger) -> None:
        heard.append(probe)

    run(command, "--timesteps", "2")
    assert heard == [ProbeSettings(images=32, timesteps=2, seed=5)]
    assert run(command, "--seed", "1").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--colour", "green"), "Error: --colour must be one of red, blue, not 'green'\n"),
        (("--sides", "five"), "Error: --sides must be whole numbers with spaces between, such as '5 20', not 'five'\n"),
        (("-n", ""), "Error: --names must name at least one method, such as lgtm-0.7 or none, not ''\n"),
    ],
)
def test_an_error_of_a_group_names_the_flag(arguments: tuple[str, ...], words: str) -> None:
    def command(sizes: SizeSettings, count: int = 2) -> None: ...

    result = run(command, *arguments)
    assert result.exit_code == 1
    assert result.stderr == words
