"""Presets as they are kept: in the folder of the model that they were measured on, or in a file of their own.

Nothing but the standard library is imported, so that presets can be listed without waiting for PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent
_FORMAT, _FORMATS = "bigain preset 1", "bigain presets 1"


@dataclass(frozen=True)
class Preset:
    """Methods that were chosen for a model; a field is None where the file does not say."""

    source: str  # where it is from: "MODEL/NAME" or the path of a file
    methods: str  # as text
    model: str | None = None  # name of the weights
    architecture: str | None = None  # fingerprint by bigain.backbones.presets.architecture
    dtypes: tuple[str, ...] = ()  # in which it was measured
    data: str | None = None  # on which it was chosen
    about: Mapping[str, Any] = field(default_factory=dict)  # whatever else is known, such as what was measured


def names() -> tuple[str, ...]:
    """The presets of embedded models, such as "glyphs-dit/balanced", from little to much compression."""
    return tuple(f"{model}/{name}" for model, content in _embedded().items() for name in content["presets"])


def read(source: str | Path) -> Preset | None:
    """The preset that a text stands for, "MODEL/NAME" or a path that ends in ".json"; None where it is a spec.

    Raises:
        ValueError: there is no such preset, or the file is none.
        FileNotFoundError: there is no such file.
    """
    if isinstance(source, Path) or source.endswith(".json"):
        return _read_file(Path(source))
    model, _, name = source.partition("/")
    return of_model(model, name) if _is_named(source) else None


def text_of(source: str | Path) -> str:
    """The spec that a text stands for: a preset's, or the text itself; raises as ``read``."""
    preset = read(source)
    return str(source) if preset is None else preset.methods


def of_model(model: str, name: str) -> Preset:
    """A preset of an embedded model; where there is none, a ValueError says what to do."""
    embedded = _embedded()
    if model not in embedded:
        raise ValueError(
            f"the model of a preset must be one that was measured, {', '.join(embedded)}, not {model!r}: what its "
            f"layers can give, `bigain allocate --model {model} --save 0.2` finds out"
        )
    content = embedded[model]
    if name not in content["presets"]:
        raise ValueError(f"a preset of {model} must be one of {', '.join(content['presets'])}, not {name!r}")
    return _preset(f"{model}/{name}", content | content["presets"][name])


def content(preset: Preset) -> str:
    """The content of a preset file; ``read`` reads it back."""
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "methods": preset.methods,
        "model": preset.model,
        "architecture": preset.architecture,
    }
    facts |= {"dtype": list(preset.dtypes), "data": preset.data, **preset.about}
    return json.dumps(facts, indent=1) + "\n"


def embedded_name(path: Path) -> str | None:
    """The name of the embedded model that a path lies in; None if it lies in none."""
    return path.relative_to(_ROOT).parts[0].replace("_", "-") if _ROOT in path.parents else None


def _embedded() -> dict[str, dict[str, Any]]:
    """The contents of the presets' files by model, sorted."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(_ROOT.glob("*/presets.json"))]
    return {content["model"]: content for content in contents if content["format"] == _FORMATS}


def _read_file(path: Path) -> Preset:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be a preset file, as JSON, but cannot be read as such: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("methods"), str):
        raise ValueError(f"{path} must be a preset file, with format {_FORMAT!r} and methods as text")
    methods: str = content["methods"]
    if methods.endswith(".json") or _is_named(methods):
        raise ValueError(f"methods in {path} must be a spec, not the name of another preset, {methods!r}")
    return _preset(str(path), content)


def _is_named(text: str) -> bool:
    """Whether a text is MODEL/NAME; in a spec a slash stands within a field only."""
    model, slash, _ = text.partition("/")
    return bool(slash) and ":" not in model


def _preset(source: str, content: Mapping[str, Any]) -> Preset:
    """Checked as far as what is compared with a model."""
    about = {name: value for name, value in content.items() if name not in ("format", "presets")}
    methods, *texts = (about.pop(name, None) for name in ("methods", "model", "architecture", "data"))
    dtypes = about.pop("dtype", None) or []
    dtypes = [dtypes] if isinstance(dtypes, str) else dtypes
    if not isinstance(dtypes, list) or any(not isinstance(text, str | None) for text in [*texts, *dtypes]):
        raise ValueError(f"model, architecture, dtype and data in {source} must be texts")
    model, architecture, data = texts
    return Preset(source, methods, model, architecture, tuple(dtypes), data, about)
