"""Presets of models, until `bigain.backbones.presets` has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bigain.methods import text as pure
from bigain.methods.measured import PRESETS, preset_text
from bigain.methods.text import Compression, spec

_FORMAT = "bigain preset 1"


def measured_names() -> tuple[str, ...]:
    """The presets of models, such as "glyphs-dit/balanced"."""
    return tuple(f"{model}/{name}" for model, presets in PRESETS.items() for name in presets)


def preset(name: str, model: str) -> Compression:
    """A named preset of a model: "quality", "balanced" or "fast".

    Which layers can give what differs from model to model, so there are presets only for models that were measured;
    for another ``bigain allocate`` finds what its layers can give.

    Measured on the embedded data's test split (1,000 images classified, accuracy in %; 1,000 generated, FID in the
    features of the embedded recogniser, PSNR in dB to the uncompressed images); saved: FLOPs of a forward::

        model       preset    saved, %  accuracy    FID  PSNR
        glyphs-dit  none           0.0      95.3   2.85
        glyphs-dit  quality       20.1      94.9   3.48  19.4
        glyphs-dit  balanced      28.1      93.0   4.37  17.6
        glyphs-dit  fast          35.2      80.3   9.72  18.2
        glyphs-sd   none           0.0      97.1   0.90
        glyphs-sd   quality        7.0      97.5   0.90  30.3
        glyphs-sd   balanced      14.2      96.6   0.90  22.1
        glyphs-sd   fast          20.3      95.4   0.91  19.3

    What they save is FLOPs; whether it is time depends on the processor. In bfloat16, on 2 cores of one, those of
    glyphs-dit run at 1.07 to 1.15 times the speed of no compression, those of glyphs-sd at 0.93 to 1.14 times, which is
    about what times scatter there; on one that multiplies bfloat16 faster merging takes more time than it saves
    (docs/results.md has each, and what is faster).

    Raises:
        ValueError: nothing was measured for the model, or there is no such preset; says what to do.

    Example:
        >>> bigain.apply(model, bigain.preset("balanced", "glyphs-dit"))  # the same as "glyphs-dit/balanced"
    """
    return parse(preset_text(name, model))


def parse(text: str | Path) -> Compression:
    """As `bigain.methods.text.parse`, and "MODEL/NAME" or the path of a preset file (.json)."""
    if isinstance(text, Path) or text.endswith(".json"):
        text = _read_preset(Path(text))
    model, slash, name = text.partition("/")
    if slash and ":" not in model:
        text = preset_text(name, model)
    return pure.parse(text)


def preset_file(methods: str, about: Mapping[str, object]) -> str:
    """The content of a preset file: methods as text, and whatever is to be known about them."""
    return json.dumps({"format": _FORMAT, "methods": spec(parse(methods)), **about}, indent=1) + "\n"


def _read_preset(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no preset file of bigain: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("methods"), str):
        raise ValueError(f"{path} is no preset file of bigain, which has format {_FORMAT!r} and methods as text")
    methods: str = content["methods"]
    if methods.endswith(".json"):
        raise ValueError(f"{path} names another file, {methods!r}, where its methods should be")
    return methods
