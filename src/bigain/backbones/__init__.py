"""Where a method acts in a model family: hooks on diffusers models, and the registry of supported classes."""

from bigain.backbones.application import Handle, applied_to, apply, compressed, recorded, remove, row_keys
from bigain.backbones.families import SUPPORTED
from bigain.backbones.presets import preset, preset_file, resolve
from bigain.backbones.state import Seen
from bigain.backbones.summary import LayerCost, Summary

__all__ = [
    "SUPPORTED",
    "Handle",
    "LayerCost",
    "Seen",
    "Summary",
    "applied_to",
    "apply",
    "compressed",
    "preset",
    "preset_file",
    "recorded",
    "remove",
    "resolve",
    "row_keys",
]
