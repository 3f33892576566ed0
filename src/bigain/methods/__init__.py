"""Token-compression methods as frozen configs: one file per method."""

from bigain.methods.adaptive_block_merging import AdaptiveBlockMerging
from bigain.methods.base import Context, TokenDownsampling, TokenMerging
from bigain.methods.frequency_selection import FrequencySelection
from bigain.methods.kv_downsampling import AveragePooling, InterpolateExtrapolateKV, ToDo
from bigain.methods.laplacian_merging import LaplacianMerging
from bigain.methods.presets import METHODS, Method, parse, preset_names, spec
from bigain.methods.quadtree_merging import QuadtreeMerging
from bigain.methods.schedules import Linear
from bigain.methods.sito import SiTo
from bigain.methods.tome import ToMe

__all__ = [
    "METHODS",
    "AdaptiveBlockMerging",
    "AveragePooling",
    "Context",
    "FrequencySelection",
    "InterpolateExtrapolateKV",
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
