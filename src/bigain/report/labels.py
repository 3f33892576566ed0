"""What a method is called in tables and pictures, and which settings of it belong together."""

from __future__ import annotations

from bigain.methods import Compression, Label
from bigain.zoo import presets

PRESET = "Preset"  # the name of all presets of models
_PRESETS = ("quality", "balanced", "fast")  # from little to much

__all__ = ["PRESET", "Label", "label"]


def label(text: str) -> Label:
    """The label of a spec: that of the preset which it is, or of its methods.

    Example:
        >>> str(label("tome:ratio=0.5,destinations=random,redraw=forward"))
        'ToMe 50%, random per forward'
    """
    methods = Compression.of(presets.text_of(text))
    if len(methods) > 1:
        for preset in presets.names():
            if Compression.of(presets.text_of(preset)) == methods:
                _, _, name = preset.partition("/")
                return Label(PRESET, "", name, float(_PRESETS.index(name)))
    return methods.label
