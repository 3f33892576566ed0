"""Methods by name: ``parse("lgtm-0.7")``, ``parse("tome:ratio=0.5,destinations=random")``, and the way back."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from dataclasses import MISSING, fields

from bigain.methods.adaptive_block_merging import AdaptiveBlockMerging
from bigain.methods.base import TokenDownsampling, TokenMerging
from bigain.methods.frequency_selection import FrequencySelection
from bigain.methods.kv_downsampling import AveragePooling, InterpolateExtrapolateKV, ToDo
from bigain.methods.laplacian_merging import LaplacianMerging
from bigain.methods.quadtree_merging import QuadtreeMerging
from bigain.methods.schedules import Linear
from bigain.methods.sito import SiTo
from bigain.methods.tome import ToMe

Method = TokenMerging | TokenDownsampling

METHODS: dict[str, type[TokenMerging] | type[TokenDownsampling]] = {
    method.name: method
    for method in (
        LaplacianMerging,
        AdaptiveBlockMerging,
        QuadtreeMerging,
        ToMe,
        SiTo,
        InterpolateExtrapolateKV,
        ToDo,
        AveragePooling,
        FrequencySelection,
    )
}
_STRENGTHS = {TokenMerging: ("ratio", ("0.3", "0.5", "0.7")), TokenDownsampling: ("factor", ("2", "3", "4"))}


def preset_names() -> tuple[str, ...]:
    """The shorthands that documentation and help texts list, such as "lgtm-0.7" and "iekvd-2"."""
    return tuple(f"{name}-{value}" for name, method in METHODS.items() for value in _strength(method)[1])


def parse(text: str) -> tuple[Method, ...]:
    """Reads methods from text: "none", "NAME-STRENGTH", "NAME:field=value,…", joined by "+" outside of fields.

    The presets of models and preset files are read by `bigain.backbones.resolve`.

    Values: numbers, words, "2x2" for a cell, "1/2" for several levels, layers or locations, "0.8>1.2" for
    `Linear(0.8, 1.2)` ("0.8>1.2@4000" where the model was trained on 4000 timesteps).

    Raises:
        ValueError: for an unknown method, field or value; names what would be right.

    Example:
        >>> parse("lgtm-0.7")
        (LaplacianMerging(ratio=0.7, ...),)
    """
    if text.strip() == "none":
        return ()
    return tuple(_parse_one(part.strip()) for part in text.split("+"))


def spec(methods: Method | Iterable[Method]) -> str:
    """The canonical text of one or several methods; ``parse`` reads it back."""
    several = (methods,) if isinstance(methods, TokenMerging | TokenDownsampling) else tuple(methods)
    return "+".join(_spec_one(method) for method in several) or "none"


def _strength(method: type[TokenMerging] | type[TokenDownsampling]) -> tuple[str, tuple[str, ...]]:
    return next(strength for base, strength in _STRENGTHS.items() if issubclass(method, base))


def _parse_one(text: str) -> Method:
    name, colon, settings = text.partition(":")
    if not colon and name not in METHODS:
        name, _, strength = text.rpartition("-")
        settings = f"{_strength(METHODS[name])[0]}={strength}" if name in METHODS else ""
    if name not in METHODS:
        raise ValueError(
            f"unknown method or preset {text!r}: give 'none', a method ({', '.join(METHODS)}) such as "
            f"'lgtm:ratio=0.7', or a preset ({', '.join(preset_names())})"
        )
    method = METHODS[name]
    types_ = typing.get_type_hints(method)
    known = [field.name for field in fields(method)]
    values: dict[str, object] = {}
    for setting in filter(None, (part.strip() for part in settings.split(","))):
        key, equals, value = setting.partition("=")
        if key not in known or not equals:
            raise ValueError(
                f"{setting!r} is no setting of {name}: write field=value with a field of {', '.join(known)}"
            )
        if key in values:
            raise ValueError(f"{key!r} is given twice in {text!r}")
        values[key] = _parse_value(f"{name}:{key}", value, types_[key])
    return method(**values)  # type: ignore[arg-type]


def _parse_value(what: str, text: str, hint: object) -> object:
    """Reads ``text`` as the type of the field: a union is tried from its most special member."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    try:
        if type(None) in options and text == "none":
            return None
        if Linear in options and ">" in text:
            noisy, clean = text.split(">")
            clean, _, length = clean.partition("@")
            return Linear(float(noisy), float(clean), int(length or 1000))
        several = next((option for option in options if typing.get_origin(option) is tuple), None)
        if several is not None:
            item = typing.get_args(several)[0]
            parts = text.split("x" if what.endswith(":cell") else "/")
            return tuple(int(part) for part in parts) if item is int else tuple(parts)
        if bool in options:
            return {"true": True, "false": False}[text.lower()]
        if float in options:
            return float(text)
        if int in options:
            return int(text)
    except (ValueError, KeyError):
        expected = _EXPECTED.get(what.split(":")[1], f"expected {hint}")
        raise ValueError(f"{what} cannot be {text!r}: {expected}") from None
    return text


_EXPECTED = {
    "ratio": "give a number in [0, 1) or a schedule such as 0.7>0.3",
    "alpha": "give a number or a schedule such as 0.8>1.2",
    "factor": "give a whole number from 1",
    "cell": "give height x width, such as 2x2",
    "levels": "give whole numbers from 1, such as 1 or 1/2",
    "layers": "give whole numbers from 0, such as 0/1/5, or none",
    "gate": "give a number from 0",
    "protect": "give a number in [0, 1)",
    "window": "give a multiple of the cell's sides, or none",
    "smoothing": "give a whole number from 0 to 16",
    "depth": "give a whole number from 1",
}


def _spec_one(method: Method) -> str:
    strength = _strength(type(method))[0]
    parts = []
    for field in fields(method):
        value = getattr(method, field.name)
        default = field.default if field.default is not MISSING else None
        if field.name == strength or value != default:
            parts.append(f"{field.name}={_spec_value(field.name, value)}")
    return f"{method.name}:{','.join(parts)}"


def _spec_value(name: str, value: object) -> str:
    if isinstance(value, Linear):
        length = "" if value.train_timesteps == 1000 else f"@{value.train_timesteps}"
        return f"{_number(value.noisy)}>{_number(value.clean)}{length}"
    if isinstance(value, tuple):
        return ("x" if name == "cell" else "/").join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
