"""Token-compression methods as frozen configs. A new one is a class in a file of its own, imported and listed here.

Reading and refusing a name needs no PyTorch: methods import it when tokens are given.
"""

from bigain.methods.base import Context, Method, TokenMerging
from bigain.methods.downsampling import (
    AveragePooling,
    FrequencySelection,
    InterpolateExtrapolateKV,
    ToDo,
    TokenDownsampling,
)
from bigain.methods.merging import AdaptiveBlockMerging, LaplacianMerging, QuadtreeMerging, SiTo, ToMe
from bigain.methods.schedules import Linear
from bigain.methods.text import METHODS, Compression, Label, parse, preset_names, spec

_ALL: tuple[type[Method], ...] = (
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
METHODS.update({method.name: method for method in _ALL})

__all__ = [
    "METHODS",
    "AdaptiveBlockMerging",
    "AveragePooling",
    "Compression",
    "Context",
    "FrequencySelection",
    "InterpolateExtrapolateKV",
    "Label",
    "LaplacianMerging",
    "Linear",
    "Method",
    "QuadtreeMerging",
    "SiTo",
    "ToDo",
    "ToMe",
    "TokenDownsampling",
    "TokenMerging",
    "parse",
    "preset_names",
    "spec",
]
