"""BiGain: token compression for diffusion models that keeps both generation and classification.

Source of the methods: "BiGain: Unified Token Compression for Joint Generation and Prediction", arXiv 2603.12240.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bigain.methods import METHODS

if TYPE_CHECKING:
    from bigain.backbones import Handle, apply, compressed, preset, remove  # noqa: F401
    from bigain.classify import DiffusionClassifier  # noqa: F401
    from bigain.methods import *  # noqa: F403

__version__ = "1.0.0"

_HOMES = {
    **dict.fromkeys(("Handle", "apply", "compressed", "preset", "remove"), "bigain.backbones"),
    "DiffusionClassifier": "bigain.classify",
    **dict.fromkeys(("Linear", *(method.__name__ for method in METHODS.values())), "bigain.methods"),
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Loaded at first use, so that `import bigain` and `bigain --help` do not wait for diffusers.
    if name not in _HOMES:
        raise AttributeError(f"module 'bigain' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    # With the names that are not loaded yet, for completion.
    return sorted({*globals(), *__all__})
