"""BiGain: token compression for diffusion models that keeps both generation and classification.

Source of the methods: "BiGain: Unified Token Compression for Joint Generation and Classification", arXiv 2603.12240.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigain.backbones import Handle, apply, compressed, preset, remove
    from bigain.classify import DiffusionClassifier
    from bigain.methods import (
        AdaptiveBlockMerging,
        AveragePooling,
        FrequencySelection,
        InterpolateExtrapolateKV,
        LaplacianMerging,
        Linear,
        QuadtreeMerging,
        SiTo,
        ToDo,
        ToMe,
    )

__version__ = "0.1.0"

_HOMES = {
    "Handle": "bigain.backbones",
    "apply": "bigain.backbones",
    "compressed": "bigain.backbones",
    "preset": "bigain.backbones",
    "remove": "bigain.backbones",
    "DiffusionClassifier": "bigain.classify",
    "AdaptiveBlockMerging": "bigain.methods",
    "AveragePooling": "bigain.methods",
    "FrequencySelection": "bigain.methods",
    "InterpolateExtrapolateKV": "bigain.methods",
    "LaplacianMerging": "bigain.methods",
    "Linear": "bigain.methods",
    "QuadtreeMerging": "bigain.methods",
    "SiTo": "bigain.methods",
    "ToDo": "bigain.methods",
    "ToMe": "bigain.methods",
}

__all__ = [
    "AdaptiveBlockMerging",
    "AveragePooling",
    "DiffusionClassifier",
    "FrequencySelection",
    "Handle",
    "InterpolateExtrapolateKV",
    "LaplacianMerging",
    "Linear",
    "QuadtreeMerging",
    "SiTo",
    "ToDo",
    "ToMe",
    "apply",
    "compressed",
    "preset",
    "remove",
]


def __getattr__(name: str) -> Any:
    # Loaded at first use, so that `import bigain` and `bigain --help` do not wait for diffusers.
    if name not in _HOMES:
        raise AttributeError(f"module 'bigain' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    # With the names that are not loaded yet, for completion.
    return sorted({*globals(), *__all__})
