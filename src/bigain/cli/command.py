"""What stands around every command: a file of its options, errors as one line, and Ctrl-C."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sqlite3
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

show_tracebacks: ContextVar[bool] = ContextVar("show_tracebacks", default=False)

# What a user can mend: a value, a file, a missing package, weights that give NaN, a full disk, a damaged file.
_MENDABLE = (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    MemoryError,
    RecursionError,
    sqlite3.Error,
    zlib.error,
)
_RESUMABLE = ("evaluate", "allocate", "analyse")
# What the command that would repeat a run's results leaves out.
_NOT_REPEATED = ("config", "out", "quiet", "engine", "workers", "address")
_BUILT_IN = ("demo",)


class Command(TyperCommand):
    """A command whose errors are one line, and whose options may come from a file if it has ``--config``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes the defaults from the config file, if there is one."""
        if any(param.name == "config" for param in self.params):
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            alone = not {"config", "methods", "preset", "help"} & given.keys()
            name = "demo" if alone else given.get("config")
            with reported(ctx):
                ctx.default_map = None if name is None else read_config(name, self.params)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command, with its errors and warnings as lines."""
        with reported(ctx), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return super().invoke(ctx)


@contextmanager
def reported(ctx: Any) -> Iterator[None]:
    """Shows an error that a user can mend as one line, with exit status 1; ``bigain --traceback`` shows all of it.

    Ctrl-C ends with status 130, and says how to go on.
    """
    try:
        yield
    except KeyboardInterrupt:
        again = f"bigain {shlex.join(sys.argv[1:])}"
        kept = f" What is done is kept; to go on: {again}" if ctx.info_name in _RESUMABLE else ""
        typer.secho(f"Stopped.{kept}", fg="yellow", err=True)
        raise typer.Exit(130) from None
    except (*_MENDABLE, RuntimeError) as error:
        text = _out_of_memory(error, ctx) or (isinstance(error, _MENDABLE) and (str(error) or type(error).__name__))
        if show_tracebacks.get() or not text:
            raise
        typer.secho(f"Error: {_with_flags(text, ctx)}", fg="red", err=True)
        raise typer.Exit(1) from error


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """What the package itself warns of is one line; others' warnings say where they arose."""
    own = category is UserWarning and f"{os.sep}bigain{os.sep}" in filename
    text = f"Warning: {message}\n" if own else warnings.formatwarning(message, category, filename, lineno)
    typer.secho(text, fg="yellow", err=True, nl=False)


def _out_of_memory(error: BaseException, ctx: Any) -> str | None:
    """What to do about memory that ran out; None for other errors."""
    torch_error = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and torch_error):
        return None
    size = ctx.params.get("batch_size") or 1
    if size == 1:
        return "the memory must hold a batch of 1: give a smaller model, a smaller dtype or another device"
    return f"batch_size must be below {size} for the memory of this device: give --batch-size {size // 2}"


def _with_flags(text: str, ctx: Any) -> str:
    """The subject of "FIELD must ..." as the flag that sets the field."""
    flags = {
        param.name: f"--{param.name.rstrip('_').replace('_', '-')}" for param in ctx.command.params if _is_flag(param)
    }
    subject, must, rest = text.partition(" must ")
    if not must:
        return text
    return re.sub(r"(?<![-\w/.'])\w+(?![-\w/.'])", lambda word: flags.get(word[0], word[0]), subject) + must + rest


def _is_flag(param: Any) -> bool:
    return any(text.startswith("--") for text in param.opts)


def read_config(name: str, params: list[Any]) -> dict[str, Any]:
    """The values that a file of TOML, or the built-in "demo", gives to a command's options, by their names."""
    path = Path(sys.modules["bigain.run"].__path__[0], f"{name}.toml") if name in _BUILT_IN else Path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"config must be {' or '.join(_BUILT_IN)}, or a file that exists, not {name!r}"
        ) from None
    except ValueError as error:
        raise ValueError(f"config must be a file of TOML: {name} is not: {error}") from error
    flags = {param.name: param for param in params if _is_flag(param) and param.name not in ("config", "help")}
    return {key: _value(name, key, value, flags) for key, value in content.items()}


def _value(name: str, key: str, value: Any, flags: Mapping[str, Any]) -> Any:
    """A value of a file as the command line would have it."""
    if key not in flags:
        near = difflib.get_close_matches(key, flags, n=1)
        raise ValueError(f"a key of {name} must be the name of a flag, not {key!r}{f': {near[0]}?' if near else ''}")
    param = flags[key]
    if isinstance(value, dict) or isinstance(value, bool) != param.is_flag:
        raise ValueError(f"{key} in {name} must be {'true or false' if param.is_flag else 'a value'}, not {value!r}")
    if value == []:
        raise ValueError(f"{key} in {name} must have at least one value, not []")
    if param.multiple:
        return [str(part) for part in value] if isinstance(value, list) else [str(value)]
    return " ".join(map(str, value)) if isinstance(value, list) else value


def command_line(ctx: Any) -> str:
    """The command that would repeat what this one measures: its config file, and the flags that were given."""
    words = ["bigain", ctx.info_name]
    if ctx.params.get("config") is not None:
        words += ["--config", ctx.params["config"]]
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name)
        if param.name in _NOT_REPEATED or source is None or source.name != "COMMANDLINE":
            continue
        value = ctx.params[param.name]
        for part in value if isinstance(value, list | tuple) else [value]:
            words += [f"--{param.name.replace('_', '-')}", str(part)]
    return shlex.join(words)
