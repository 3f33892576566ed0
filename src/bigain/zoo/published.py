"""Configurations of published models, and of a folder's: what a forward costs follows from these without weights.

Nothing but the standard library is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "published.json"
_PARTS = ("transformer", "unet")
_SCALES = ("scale_factor_spatial", "spatial_compression_ratio")  # as configs of autoencoders call it


@dataclass(frozen=True)
class Configuration:
    """A denoising model without weights.

    Args:
        name: as it is called.
        kind: name of its class in diffusers.
        config: as in its config.json; what it lacks are the class's defaults.
        sizes: (width, height, frames) that its card names, or sample.json of its folder; none where there is neither.
        pixels, frames: side in pixels, and frames, of what its autoencoder makes one position of; None where nothing
            says so.
        text: the most tokens of text that its tokenisers make of a prompt; None where nothing says so.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    sizes: tuple[tuple[int, int, int], ...] = ()
    pixels: int | None = None
    frames: int | None = None
    text: int | None = None


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return content


def names() -> tuple[str, ...]:
    """The published models, such as "FLUX.1-dev"."""
    return tuple(_content())


def published(name: str) -> Configuration:
    """A published model's, whatever the case; a ValueError lists them."""
    by_name = {key.lower(): key for key in names()}
    if name.lower() not in by_name:
        raise ValueError(f"name must be one of {', '.join(names())}, not {name!r}")
    own = _content()[by_name[name.lower()]]
    sizes = tuple((width, height, *frames) if frames else (width, height, 1) for width, height, *frames in own["sizes"])
    return Configuration(by_name[name.lower()], own["class"], own["config"], sizes)


def of_folder(path: Path) -> Configuration:
    """That of a pipeline's folder, of a model's, or of a config.json itself.

    Raises:
        FileNotFoundError: there is no config where one would be.
        ValueError: a config is not one of diffusers.
    """
    files = [path, path / "config.json", *(path / part / "config.json" for part in _PARTS)]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        inside = " or ".join(f"{part}/config.json" for part in _PARTS)
        raise FileNotFoundError(f"{path} must hold config.json, {inside}")
    config = _read(file)
    if not isinstance(config.get("_class_name"), str):
        raise ValueError(f"{file} must name the model's class as its _class_name, not {config.get('_class_name')!r}")
    if file.parent.name not in _PARTS:
        return Configuration(path.name, config["_class_name"], config)
    pipeline = file.parent.parent
    sample = sample_sizes(pipeline)
    side = sample.get("image_size")
    sizes = () if side is None else ((side, side, sample.get("frames", 1)),)
    return Configuration(path.name, config["_class_name"], config, sizes, *_autoencoder(pipeline), _text(pipeline))


def sample_sizes(folder: Path) -> dict[str, int]:
    """The usual image_size and frames of a pipeline's folder, where its sample.json says so.

    Raises:
        ValueError: it says something else.
    """
    file = folder / "sample.json"
    content = _read(file) if file.is_file() else {}
    for name, size in content.items():
        if name not in ("image_size", "frames") or isinstance(size, bool) or not isinstance(size, int):
            raise ValueError(f"{file} must hold image_size and frames as integers, not {name}: {size!r}")
    return content


def _autoencoder(pipeline: Path) -> tuple[int | None, int | None]:
    """What the autoencoder beside a model makes one position of: 1 pixel where parts without one make a pipeline."""
    file = pipeline / "vae" / "config.json"
    if not file.is_file():
        alone = (pipeline / "scheduler").is_dir() and not (pipeline / "model_index.json").is_file()
        return (1, None) if alone else (None, None)
    config = _read(file)
    side = next((config[key] for key in _SCALES if config.get(key) is not None), None)
    if side is None and config.get("_class_name") == "AutoencoderKL":
        side = 2 ** (len(config["block_out_channels"]) - 1)
    return side, config.get("scale_factor_temporal")


def _text(pipeline: Path) -> int | None:
    """Tokens of the last text encoder, which tell more than a summary; of three, after those of the first."""
    files = [pipeline / f"tokenizer{number}" / "tokenizer_config.json" for number in ("", "_2", "_3")]
    configs = [_read(file) for file in files if file.is_file()]
    lengths = [int(config["model_max_length"]) for config in configs if config.get("model_max_length") is not None]
    if not lengths or len(lengths) < len(configs):
        return None
    return lengths[-1] + lengths[0] if len(lengths) == 3 else lengths[-1]


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} must be a config of diffusers, as JSON, but cannot be read as such: {error}"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} must be a config of diffusers, a JSON object, not a {type(config).__name__}")
    return config
