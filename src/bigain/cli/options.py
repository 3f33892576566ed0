"""Groups of settings as options of a command, the options that several commands share, and what becomes of them.

Nothing here imports PyTorch before it is needed.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bigain.methods import Compression
from bigain.methods.text import split_specs
from bigain.run.settings import METHODS_HELP, Group, read

if TYPE_CHECKING:
    from rich.console import Console

    from bigain.diffusion import ClassConditional, Denoiser

_NUMBERS = (tuple[int, ...], tuple[int, ...] | None)  # fields that are written '5 1'

Methods = Annotated[list[str] | None, typer.Option("--methods", "-m", help=METHODS_HELP)]
OneMethod = Annotated[list[str] | None, typer.Option("--methods", "-m", help=f"One, not several. {METHODS_HELP}")]
Seed = Annotated[int, typer.Option(help="Of all randomness.")]


def _hush(ctx: typer.Context, quiet: bool) -> bool:
    """Until the command ends, where it is asked for."""
    if quiet:
        from bigain.diffusion.opening import quiet_libraries

        ctx.with_resource(quiet_libraries())
    return quiet


Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_hush, help="No progress bar, and no warnings of other packages."),
]


class Without:
    """Marks a group of which a command does not show some fields: Annotated[ModelSettings, Without("threads")]."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True)
class _Spread:
    """A group and what takes its place on the command line."""

    default: Group
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> _Spread | None:
        """Of a command's parameter; None where that is no group."""
        hint, marks = parameter.annotation, list[Any]()
        if typing.get_origin(hint) is Annotated:
            hint, *marks = typing.get_args(hint)
        if not (isinstance(hint, type) and issubclass(hint, Group)):
            return None
        without = [name for mark in marks if isinstance(mark, Without) for name in mark.names]
        default = hint() if parameter.default is parameter.empty else parameter.default
        return cls(default, tuple(without))

    def options(self) -> Iterator[inspect.Parameter]:
        """One parameter for each field that has a help text, those of groups within included."""
        hints = typing.get_type_hints(type(self.default))
        panel = type(self.default).__name__.removesuffix("Settings") or None
        for field in fields(self.default):
            value = getattr(self.default, field.name)
            if isinstance(value, Group):
                yield from _Spread(value, self.without).options()
            elif "help" in field.metadata and field.name not in self.without:
                yield _option(field, value, hints[field.name], panel)

    def take(self, values: dict[str, Any]) -> Group:
        """The group that the command line gives; takes what belongs to it out of ``values``."""
        changes: dict[str, Any] = {}
        hints = typing.get_type_hints(type(self.default))
        for field in fields(self.default):
            value = getattr(self.default, field.name)
            if isinstance(value, Group):
                changes[field.name] = _Spread(value, self.without).take(values)
            elif field.name in values and field.name not in self.without:
                given = values.pop(field.name)
                changes[field.name] = _read(field.name, given, hints[field.name], value)
        return replace(self.default, **changes)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Spreads a command's groups of settings into options, and puts them together again before it is called.

    A parameter's default, or where it has none what its class gives, holds the options' defaults.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, _Spread] = {}
    spread: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group = _Spread.of(parameter)
        if group is None:
            spread.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            groups[parameter.name] = group
            spread.extend(group.options())

    @functools.wraps(command)
    def called(**values: Any) -> None:
        made = {name: group.take(values) for name, group in groups.items()}
        command(**values, **made)

    called.__signature__ = signature.replace(parameters=spread)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in spread} | {"return": None}
    return called


def _option(field: Field[Any], value: Any, hint: Any, panel: str | None) -> inspect.Parameter:
    """A field as a parameter that Typer makes an option of."""
    low, choices, short = (field.metadata[key] for key in ("low", "choices", "short"))
    flag = f"--{field.name.rstrip('_').replace('_', '-')}"  # for_ is --for
    if hint in _NUMBERS:
        hint, value = str | None, None if value is None else " ".join(map(str, value))
    elif hint == tuple[str, ...]:
        hint, value = list[str] | None, None
    info = typer.Option(
        *((flag, short) if short else (flag,)),
        help=field.metadata["help"],
        min=low,
        metavar="|".join(choices) or None,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=Annotated[hint, info]
    )


def _read(name: str, given: Any, hint: Any, default: Any) -> Any:
    """The value of a field, from that of its option."""
    if hint in _NUMBERS:
        return None if given is None else whole_numbers(name, given)
    if hint == tuple[str, ...]:
        return default if given is None else method_texts(given, name)
    return given


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """Reads '5 1' or '5,1'; ValueError for anything else."""
    words = re.split(r"[\s,]+", text.strip())
    if not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(f"{name} must be whole numbers with spaces between, such as '5 20', not {text!r}")
    return tuple(int(word) for word in words)


def method_texts(given: Sequence[str], name: str = "methods") -> tuple[str, ...]:
    """The methods of an option, one by one; a ValueError where there are none."""
    texts = split_specs(given)
    if not texts:
        raise ValueError(f"{name} must name at least one method, such as lgtm-0.7 or none, not {' '.join(given)!r}")
    return texts


def read_methods(given: Sequence[str] | None, default: Sequence[str] = ()) -> tuple[Compression, ...]:
    """The methods of an option, or those of ``default`` where it is left out.

    Raises:
        ValueError, FileNotFoundError: a method, preset or file that does not exist, or none at all.
    """
    return read(default if given is None else method_texts(given))


def read_method(given: Sequence[str] | None, default: str) -> Compression:
    """The one method of an option; ValueError where there are more, and as ``read_methods``."""
    methods = read_methods(given, [default])
    if len(methods) > 1:
        texts = " ".join(one.text for one in methods)
        raise ValueError(f"methods must be one method here, not {len(methods)}: {texts}")
    return methods[0]


def check_presets(given: Sequence[str] | None, denoiser: Denoiser, data: str | None = None) -> None:
    """Refuses presets that were made for another architecture; warns where weights, dtype or data are others."""
    from bigain.backbones import resolve

    for text in split_specs(given or ()):
        resolve(text, denoiser.model, data=data)


def preset_of(name: str, model: str) -> str:
    """What --methods takes for a preset: a file as it is, a name as that of the model, which must have it."""
    from bigain.zoo.presets import of_model

    if name.endswith(".json") or "/" in name:
        return name
    return of_model(model, name).source


def folder(out: Path | None, command: str, model: str) -> Path:
    """``out``, or where it is left out runs/COMMAND/MODEL: the model's folder, or the last part of its name."""
    if out is not None:
        return out
    path = Path(model)
    return Path("runs", command, path.resolve().name if path.exists() else path.name)


def label_of(text: str, denoiser: ClassConditional) -> int:
    """The label that a name or a number stands for; a ValueError lists the names, if they are few, and the range."""
    if text in denoiser.labels:
        return denoiser.labels[text]
    if text.isascii() and text.isdigit() and int(text) < denoiser.classes:
        return int(text)
    names = [*denoiser.labels]
    choices = f"{', '.join(names)} or " if 0 < len(names) <= 30 else ""
    raise ValueError(f"a class must be {choices}a label in [0, {denoiser.classes}), not {text!r}")


def console() -> Console:
    """A console as wide as the terminal; wide enough for every table where there is none."""
    from rich.console import Console

    plain = Console()
    return plain if plain.is_terminal else Console(width=170)
