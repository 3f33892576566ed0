"""Opens a model by name, folder, Hub id or as a pipeline that is there already."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bigain import zoo
from bigain.diffusion.class_conditional import ClassConditional
from bigain.diffusion.denoiser import Denoiser

EMBEDDED: tuple[str, ...] = ("glyphs-dit", "glyphs-dit-64", "glyphs-sd")
"""Diffusion models that come with the package."""

# Pipelines are told by the names of their classes: importing the classes imports transformers, which a
# class-conditional model does not need.
_FAMILIES: dict[str, tuple[str, str]] = {
    "DiTPipeline": ("bigain.diffusion.class_conditional", "ClassConditional"),
    "StableDiffusionPipeline": ("bigain.diffusion.text_conditional", "StableDiffusion"),
    "StableDiffusionXLPipeline": ("bigain.diffusion.text_conditional", "StableDiffusionXL"),
    "PixArtAlphaPipeline": ("bigain.diffusion.text_conditional", "PixArt"),
    "PixArtSigmaPipeline": ("bigain.diffusion.text_conditional", "PixArt"),
}


def open_model(
    model: Any,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    variant: str | None = None,
) -> Denoiser:
    """A denoiser for a name, a folder, a Hub id, a pipeline or a denoiser.

    Args:
        model: one of ``EMBEDDED``, such as ``"glyphs-dit"``; a folder of a diffusers pipeline; a folder that holds
            ``transformer/`` and ``scheduler/`` of a DiT, ``vae/`` unless it denoises pixels, and ``labels.json``
            where its labels have names (``{"cat": 0, "dog": 1}``); the id of a pipeline
            on the Hub (``"owner/name"``); a pipeline; or a :class:`Denoiser`, which comes back as it is.
        dtype: of the weights; None for float32, or for leaving a given pipeline as it is.
        device: None for the CPU, or for leaving a given pipeline where it is.
        variant: of the weights' files, such as ``"fp16"``.

    Raises:
        ValueError: for a name that is neither embedded nor a folder nor a Hub id, or an unsupported pipeline,
            scheduler or autoencoder; lists what is supported.
        OSError: where weights are missing or exist as pickles only; nothing but safetensors is read.
        ImportError: for a text model's name or folder without transformers; names the extra that brings it.
    """
    if isinstance(model, Denoiser):
        if dtype is not None or device is not None:
            raise ValueError("dtype and device are fixed by the denoiser; give the pipeline, or leave them out")
        return model
    if not isinstance(model, (str, Path)):
        if dtype is not None or device is not None:
            _family(model)  # before anything is moved
            model = model.to(device=device, dtype=dtype)
        return _wrapped(model)
    dtype = torch.float32 if dtype is None else dtype
    device = "cpu" if device is None else device
    folder = zoo.path(str(model)) if model in EMBEDDED else Path(model)
    if folder.is_dir():
        if (folder / "model_index.json").is_file():
            return _open_pipeline(str(folder), dtype, device, variant)
        return _open_parts(folder, dtype, device, variant)
    if isinstance(model, Path) or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ValueError(
            f"model {str(model)!r} is neither embedded ({', '.join(EMBEDDED)}), nor a folder, nor a Hub id (owner/name)"
        )
    return _open_pipeline(model, dtype, device, variant)


def _family(pipe: Any) -> type[Any]:
    """The denoiser class for a pipeline."""
    for base in type(pipe).__mro__:
        if base.__name__ in _FAMILIES:
            module, name = _FAMILIES[base.__name__]
            family: type[Any] = getattr(import_module(module), name)
            return family
    raise ValueError(f"pipeline {type(pipe).__name__} is not supported; supported are {', '.join(_FAMILIES)}")


def _wrapped(pipe: Any) -> Denoiser:
    denoiser: Denoiser = _family(pipe)(pipe)
    return denoiser


def _open_pipeline(name: str, dtype: torch.dtype, device: torch.device | str, variant: str | None) -> Denoiser:
    from diffusers import DiffusionPipeline  # imports transformers, which folders of parts do not need

    if find_spec("transformers") is None:
        family = str(DiffusionPipeline.load_config(name).get("_class_name"))
        if _FAMILIES.get(family, ("",))[0].endswith("text_conditional"):
            raise ImportError(f"{name} is a {family}, a text model, which needs: pip install 'bigain[text]'")
    pipe = DiffusionPipeline.from_pretrained(name, dtype=dtype, variant=variant, use_safetensors=True)
    return _wrapped(pipe.to(device))


def _open_parts(folder: Path, dtype: torch.dtype, device: torch.device | str, variant: str | None) -> Denoiser:
    """A folder without ``model_index.json``: a DiT and its scheduler, with or without an autoencoder."""
    import diffusers
    from diffusers import AutoencoderKL, DiTTransformer2DModel

    class_names = {}
    for part, file in (("transformer", "config.json"), ("scheduler", "scheduler_config.json")):
        path = folder / part / file
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing; a model folder holds model_index.json (a pipeline), or transformer/ and scheduler/"
            )
        class_names[part] = json.loads(path.read_text()).get("_class_name")
    if class_names["transformer"] != "DiTTransformer2DModel":
        raise ValueError(
            f"{folder / 'transformer'} holds {class_names['transformer']}; without model_index.json, "
            "supported is DiTTransformer2DModel"
        )
    scheduler_class = getattr(diffusers, str(class_names["scheduler"]), None)
    if scheduler_class is None or not issubclass(scheduler_class, diffusers.SchedulerMixin):
        raise ValueError(f"{folder / 'scheduler'} holds {class_names['scheduler']}, which is no scheduler of diffusers")
    options: dict[str, Any] = {"dtype": dtype, "variant": variant, "use_safetensors": True}
    model = DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer", **options)
    vae = None
    if (folder / "vae").is_dir():
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **options).to(device)
    scheduler = scheduler_class.from_pretrained(folder, subfolder="scheduler")
    return ClassConditional(model=model.to(device), scheduler=scheduler, vae=vae, labels=_read_labels(folder))


def _read_labels(folder: Path) -> dict[str, int] | None:
    """The label of each class by name, from ``labels.json``; None where there is no such file."""
    path = folder / "labels.json"
    if not path.is_file():
        return None
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON: {error}") from error
    if not isinstance(labels, dict):
        raise ValueError(f'{path} must map class names to labels, as {{"cat": 0, "dog": 1}} does, not {labels!r}')
    return labels
