"""Methods as text: ``parse("lgtm-0.7")``, ``parse("tome:ratio=0.5,destinations=random")``, and the way back."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import Field, dataclass, fields
from functools import cached_property
from types import NoneType
from typing import Any, get_args, get_origin

from bigain.methods.base import Method, field_kinds
from bigain.methods.schedules import Linear

METHODS: dict[str, type[Method]] = {}
"""The methods by name, in the order of help texts and tables; `bigain.methods` fills it."""

_BY_SIDES = ("cell", "factor")  # fields that are written as 2x4
_SEPARATORS = {**dict.fromkeys(_BY_SIDES, "x"), "timesteps": "-"}  # between the parts of a field; of others "/"


@dataclass(frozen=True)
class Label:
    """How a method × setting is shown.

    Args:
        name: of the method, "ToMe".
        variant: its settings other than the strength, "random per image"; empty where it is as published.
        strength: how much it compresses, "50%" of the tokens merged or "2×" fewer rows and columns of keys.
        amount: the strength as a number that grows with the compression.
    """

    name: str
    variant: str
    strength: str
    amount: float

    @property
    def family(self) -> str:
        """All but the strength."""
        return f"{self.name}, {self.variant}" if self.variant else self.name

    def __str__(self) -> str:
        text = f"{self.name} {self.strength}".strip()
        return f"{text}, {self.variant}" if self.variant else text


class Compression(tuple[Method, ...]):
    """Methods that go together, as an immutable tuple: equal, and equal in hash, where their texts are."""

    def __new__(cls, methods: Iterable[Method] = ()) -> Compression:
        compression = super().__new__(cls, methods)
        for method in compression:
            if not isinstance(method, Method):
                raise TypeError(
                    f"method must be a config such as bigain.LaplacianMerging(ratio=0.7), or a text such as "
                    f"'lgtm-0.7', not {method!r}"
                )
        return compression

    @classmethod
    def of(cls, methods: Method | Iterable[Method] | str) -> Compression:
        """A method, several or their text, as one; TypeError for anything else, ValueError for a text of none."""
        if isinstance(methods, cls):
            return methods
        if isinstance(methods, str):
            return parse(methods)
        return cls((methods,) if isinstance(methods, Method) or not isinstance(methods, Iterable) else methods)

    @cached_property
    def text(self) -> str:
        """The canonical text, which `parse` reads back: "none", or "NAME:field=value,…" joined by "+"."""
        return "+".join(map(_text, self)) or "none"

    @cached_property
    def label(self) -> Label:
        """How tables and pictures show it, such as 'ToMe 50%, random per forward'."""
        labels = [_label(method) for method in self]
        if len(labels) == 1:
            return labels[0]
        if not labels:
            return Label("No compression", "", "", 0.0)
        return Label(" + ".join(map(str, labels)), "", "", max(label.amount for label in labels))

    @property
    def is_identity(self) -> bool:
        """Whether nothing is compressed."""
        return all(method.is_identity for method in self)

    @property
    def follows_t(self) -> bool:
        """Whether some of them act in a range of t only."""
        return any(method.timesteps is not None for method in self)

    def resting(self, t: Iterable[float]) -> tuple[bool, ...]:
        """Of each method whether it does not act at these timesteps; nothing where all do.

        ValueError where timesteps differ in that: rows of a forward have as many tokens as each other.
        """
        if not self.follows_t:
            return ()
        found: dict[tuple[bool, ...], float] = {}
        for one in map(float, t):
            rests = tuple(not method.acts_at(one) for method in self)
            found.setdefault(rests if any(rests) else (), one)
        if len(found) > 1:
            first, second, *_ = found.values()
            raise ValueError(
                f"the rows of a forward must have the same methods of {self.text}, which differ between t = {first:g} "
                f"and {second:g}: give rows of each range of timesteps a forward of their own"
            )
        return next(iter(found), ())

    def parted(self, timesteps: Iterable[int]) -> list[list[int]]:
        """Places of the timesteps at which the same methods act, together; in the order in which they come."""
        parts: dict[tuple[bool, ...], list[int]] = {}
        for place, t in enumerate(timesteps):
            parts.setdefault(self.resting([t]), []).append(place)
        return [*parts.values()]

    def __repr__(self) -> str:
        return f"Compression({self.text!r})"


def preset_names() -> tuple[str, ...]:
    """The shorthands that documentation and help texts list, such as "lgtm-0.7" and "iekvd-2"."""
    return tuple(f"{name}-{value}" for name, method in METHODS.items() for value in method.strengths)


def parse(text: str) -> Compression:
    """Reads methods from text: "none", "NAME-STRENGTH", "NAME:field=value,…", joined by "+".

    Values: numbers, words, "2x2" or "2x2x2" for cells and windows, "1/2" for several levels, layers or locations,
    "500-1000" for a range of timesteps, "0.8>1.2" for `Linear(0.8, 1.2)` ("0.8>1.2@4000" where the model was trained on
    4000 timesteps, "@1" where t lies in [0, 1]).

    ValueError for an unknown method, field or value; says what would be right.

    Example:
        >>> parse("lgtm-0.7")
        Compression('lgtm:ratio=0.7')
    """
    if text.strip() == "none":
        return Compression()
    return Compression(_parse_one(part.strip()) for part in text.split("+"))


def spec(methods: Method | Iterable[Method]) -> str:
    """The canonical text of methods; `parse` reads it back."""
    return Compression.of(methods).text


def did_you_mean(word: str, choices: Iterable[str], rest: str = "") -> str:
    """ "; did you mean X?", the likeliest choice whatever the case, before the rest; empty where none is like it."""
    lowered = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), lowered, n=1)
    return f"; did you mean {lowered[close[0]] + rest!r}?" if close else ""


def _parse_one(text: str) -> Method:
    name, separator, settings = text.partition(":")
    if text not in METHODS and not separator and "-" in text:
        name, separator, settings = text.rpartition("-")
    if name not in METHODS:
        suggestion = did_you_mean(name, METHODS, separator + settings)
        raise ValueError(
            f"method must be 'none', {', '.join(METHODS)}, such as 'lgtm-0.7' or 'lgtm:ratio=0.7', "
            f"not {text!r}{suggestion}"
        )
    method = METHODS[name]
    if separator == "-":
        settings = f"{method.strength}={settings}"
    by_name = {field.name: field for field in fields(method)}
    values: dict[str, object] = {}
    for setting in filter(None, (part.strip() for part in settings.split(","))):
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"a setting of {name} must be field=value, not {setting!r}")
        if key not in by_name:
            suggestion = did_you_mean(key, by_name)
            raise ValueError(f"a setting of {name} must be one of {', '.join(by_name)}, not {key!r}{suggestion}")
        if key in values:
            raise ValueError(f"{key} must be given once, not twice, in {text!r}")
        values[key] = _parse_value(method, by_name[key], value)
    return method(**values)  # type: ignore[arg-type]


def _parse_value(method: type[Method], field: Field[Any], text: str) -> object:
    """Reads ``text`` as the type of the field: a union is tried from its most special member."""
    kinds = field_kinds(method)[field.name]  # type: ignore[arg-type]
    try:
        if NoneType in kinds and text == "none":
            return None
        if Linear in kinds and ">" in text:
            return _parse_schedule(text)
        if field.name in _BY_SIDES and (get_origin(kinds[0]) is tuple or "x" in text):
            return tuple(map(int, text.split("x")))
        if get_origin(kinds[0]) is tuple:
            parts = text.split(_SEPARATORS.get(field.name, "/"))
            return tuple(map(int, parts)) if get_args(kinds[0])[0] is int else tuple(parts)
        if bool in kinds:
            return {"true": True, "false": False}[text.lower()]
        number = next((kind for kind in (float, int) if kind in kinds), None)
        return text if number is None else number(text)
    except (ValueError, KeyError):
        expected = field.metadata.get("expects", "true or false" if bool in kinds else "a number")
        raise ValueError(f"{field.name} of {method.name} must be {expected}, not {text!r}") from None


def _parse_schedule(text: str) -> Linear:
    noisy, clean = text.split(">")
    clean, _, length = clean.partition("@")
    return Linear(float(noisy), float(clean), int(length or 1000))


def _settings(method: Method) -> list[tuple[str, str, bool]]:
    """Name and value as text of each field, and whether that is the default: the strength first, then the cell."""
    order = {method.strength: 0, "cell": 1}
    ordered = sorted(fields(method), key=lambda field: order.get(field.name, 2))
    values = [(field, getattr(method, field.name)) for field in ordered]
    return [(field.name, _value_text(field.name, value), value == field.default) for field, value in values]


def _text(method: Method) -> str:
    parts = [f"{name}={value}" for name, value, default in _settings(method) if name == method.strength or not default]
    return f"{method.name}:{','.join(parts)}"


def _value_text(name: str, value: object) -> str:
    if isinstance(value, Linear):
        length = "" if value.train_timesteps == 1000 else f"@{value.train_timesteps}"
        return f"{_number(value.noisy)}>{_number(value.clean)}{length}"
    if isinstance(value, tuple):
        return _SEPARATORS.get(name, "/").join(map(str, value))
    if isinstance(value, bool | None):
        return str(value).lower()
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _label(method: Method) -> Label:
    strength = getattr(method, method.strength)
    if isinstance(strength, tuple):  # the sides of windows: as strong as square ones of as many tokens
        shown, amount = f"{'×'.join(map(str, strength))} windows", math.sqrt(math.prod(strength))
    elif method.strength == "factor":
        shown, amount = f"{strength}×", float(strength)
    elif isinstance(strength, Linear):
        shown = f"{100 * strength.noisy:g}→{100 * strength.clean:g}%"
        amount = (strength.noisy + strength.clean) / 2
    else:
        shown, amount = f"{100 * strength:.4g}%", float(strength)
    return Label(method.title, ", ".join(_variant(method)), shown, amount)


def _variant(method: Method) -> list[str]:
    """The settings in words, first those that the method always tells."""
    words = method.words
    always: list[str] = []
    others: list[str] = []
    for name, value, default in _settings(method):
        if name == method.strength:
            continue
        shown = value.replace(">", "→")
        if name in words:
            always.append(f"{words[name]} {shown}")
        elif f"{name}={value}" in words:
            (always if default else others).append(words[f"{name}={value}"])
        elif not default:
            others.append(f"{name} {shown}")
    return [phrase for phrase in (*always, *others) if phrase]


def split_specs(texts: Iterable[str]) -> tuple[str, ...]:
    """Takes lists of methods apart at spaces, semicolons, and those commas that do not part a method's own settings.

    Example:
        >>> split_specs(["lgtm-0.7,tome:ratio=0.5,destinations=random todo-2"])
        ('lgtm-0.7', 'tome:ratio=0.5,destinations=random', 'todo-2')
    """
    specs: list[str] = []
    for word in (word for text in texts for word in re.split(r"[\s;]+", text) if word):
        start = len(specs)
        for part in filter(None, word.split(",")):
            setting = re.match(r"\w+=", part) is not None  # "ratio=0.5", but not "tome:ratio=0.5"
            if setting and len(specs) > start:
                specs[-1] += f",{part}"
            else:
                specs.append(part)
    return tuple(specs)
