"""The models that ship with the package: weights as safetensors, each with a card (``README.md``)."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).parent

_NETWORK = ("config.json", "diffusion_pytorch_model.safetensors")
_TRANSFORMER = ("scheduler/scheduler_config.json", *(f"transformer/{file}" for file in _NETWORK), "labels.json")
_PIPELINE = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    *(f"{part}/{file}" for part in ("unet", "vae") for file in _NETWORK),
)
_WAN = (
    "model_index.json",
    "sample.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    *(f"transformer/diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)),
    *(f"vae/{file}" for file in _NETWORK),
)
_FLUX = (
    *_WAN,
    *(f"text_encoder_2/{file}" for file in ("config.json", "model.safetensors")),
    *(f"tokenizer_2/{file}" for file in ("tokenizer.json", "tokenizer_config.json")),
)

# Per model: the files that it cannot be opened without, and the command that makes them.
_MODELS: dict[str, tuple[tuple[str, ...], str]] = {
    "glyphs-dit": (_TRANSFORMER, "python training/train_dit.py"),
    "glyphs-dit-64": (_TRANSFORMER, "make train"),
    "glyphs-flux": (_FLUX, "make train"),
    "glyphs-sd": (_PIPELINE, "python training/train_autoencoder.py` and `python training/train_text_to_image.py"),
    "glyphs-video": (_WAN, "make train"),
    "glyphs-recogniser": (("config.json", "model.safetensors"), "python training/train_recogniser.py"),
}


def names() -> tuple[str, ...]:
    """The embedded models' names, sorted."""
    return tuple(sorted(_MODELS))


def denoisers() -> tuple[str, ...]:
    """The names of those that are diffusion models."""
    return tuple(name for name in names() if name != "glyphs-recogniser")


def path(name: str) -> Path:
    """The folder of an embedded model, with all the files that it needs; underscores do for hyphens.

    Raises:
        ValueError: ``name`` is none of ``names()``; the message lists them.
        FileNotFoundError: a file of the model is missing; the message names it and the command that makes it.
    """
    key = name.replace("_", "-")
    if key not in _MODELS:
        raise ValueError(f"name must be that of an embedded model, one of {', '.join(names())}, not {name!r}")
    files, command = _MODELS[key]
    folder = _ROOT / key.replace("-", "_")
    for file in files:
        place = folder / file
        if not place.is_file():
            raise FileNotFoundError(
                f"the embedded model {key!r} must have {place}: `{command}` (in a clone of the repository) makes it,"
                f" to be copied to {folder}"
            )
    return folder
