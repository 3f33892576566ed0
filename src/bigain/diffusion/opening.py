"""Opens a model by name, folder or Hub id, or a pipeline that is open already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from bigain import zoo
from bigain.diffusion.conditional import ClassConditional, PixArt, StableDiffusion, StableDiffusionXL
from bigain.diffusion.denoiser import Denoiser
from bigain.diffusion.flow import Chroma, Flux
from bigain.diffusion.image import AuraFlow, Flux2Klein, Lumina2, QwenImage, StableDiffusion3, ZImage
from bigain.diffusion.video import HunyuanVideo, LTXVideo, Wan
from bigain.zoo.published import sample_sizes

EMBEDDED: tuple[str, ...] = zoo.denoisers()
"""Diffusion models that come with the package."""

# By the names of the pipelines' classes: importing those imports transformers, which a class-conditional model does not
# need.
_FAMILIES: dict[str, Any] = {
    "DiTPipeline": ClassConditional,
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "PixArtAlphaPipeline": PixArt,
    "PixArtSigmaPipeline": PixArt,
    "FluxPipeline": Flux,
    "ChromaPipeline": Chroma,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "QwenImagePipeline": QwenImage,
    "ZImagePipeline": ZImage,
    "Lumina2Pipeline": Lumina2,
    "AuraFlowPipeline": AuraFlow,
    "Flux2KleinPipeline": Flux2Klein,
    "WanPipeline": Wan,
    "HunyuanVideoPipeline": HunyuanVideo,
    "LTXPipeline": LTXVideo,
}


def open_model(
    model: Any,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    variant: str | None = None,
    quiet: bool = False,
    image_size: int | None = None,
    frames: int | None = None,
) -> Denoiser:
    """A denoiser for a name, a folder, a Hub id, a pipeline or a denoiser.

    Args:
        model: one of ``EMBEDDED``; a folder of a diffusers pipeline; a folder that holds ``transformer/`` and
            ``scheduler/`` of a DiT, ``vae/`` unless it denoises pixels, and ``labels.json`` where its labels have names
            (``{"cat": 0, "dog": 1}``); the id of a pipeline on the Hub (``"owner/name"``); a pipeline; or a
            :class:`Denoiser`, which comes back as it is.
        dtype: of the weights; None for float32, or for leaving a given pipeline as it is.
        device: None for the CPU, or for leaving a given pipeline where it is.
        variant: of the weights' files, such as ``"fp16"``.
        quiet: whether diffusers and transformers keep their loading bars and remarks to themselves.
        image_size: height and width in pixels, for models that take many. Left out, what ``sample.json`` of a folder
            says (``{"image_size": 64, "frames": 9}``), else as :class:`bigain.diffusion.flow.FlowConditional`.
        frames: of a video, likewise; left out, sample.json's, else the pipeline's own. 1 makes it a model of images.

    Raises:
        ValueError: for a name that is neither embedded nor a folder nor a Hub id; an unsupported pipeline, scheduler or
            autoencoder; a config that cannot be read or weights without one of the model's tensors; a device that
            PyTorch cannot use here; or a size that the model does not take, or whose config says it. Names the file or
            the value, and what would be right.
        OSError: where weights are missing or exist as pickles only; nothing but safetensors is read.
        ImportError: for a text model's name or folder without transformers; names the extra that brings it.
    """
    moved = dtype is not None or device is not None
    sizes = {name: size for name, size in (("image_size", image_size), ("frames", frames)) if size is not None}
    if isinstance(model, Denoiser):
        if moved:
            raise ValueError("dtype and device must be left out for a denoiser, which has its own")
        if sizes:
            raise ValueError(f"{' and '.join(sizes)} must be left out for a denoiser, which has its own")
        return model
    if device is not None:
        _check_device(device)
    if not isinstance(model, (str, Path)):
        family = _family(type(model), sizes)  # before anything is moved
        return family(model.to(device=device, dtype=dtype) if moved else model, **sizes)
    device = "cpu" if device is None else device
    options = {"dtype": torch.float32 if dtype is None else dtype, "variant": variant, "use_safetensors": True}
    folder = zoo.path(str(model)) if model in EMBEDDED else Path(model)
    with quiet_libraries() if quiet else ExitStack():
        if folder.is_dir():
            for file in sorted([*folder.glob("model_index.json"), *folder.glob("*/*config.json")]):
                _config(file)  # before a library trips over it
            if (folder / "model_index.json").is_file():
                return _open_pipeline(str(folder), device, options, sample_sizes(folder) | sizes)
            _check_sizes(ClassConditional, sizes)
            return _open_parts(folder, device, options)
        if isinstance(model, Path) or model.count("/") != 1 or model.startswith((".", "/", "~")):
            raise ValueError(
                f"model must be embedded ({', '.join(EMBEDDED)}), a folder or a Hub id (owner/name), not {str(model)!r}"
            )
        return _open_pipeline(model, device, options, sizes)


def _check_device(device: torch.device | str) -> None:
    """Raises a ValueError for a device on which no tensor can be made."""
    try:
        usable = torch.empty(0, device=device).device.type != "meta"
    except (RuntimeError, AssertionError):
        usable = False
    if not usable:
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        devices += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(
            f"device must be one that PyTorch can use here ({', '.join(['cpu', *devices])}), not '{device}'"
        )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Turns the loading bars and remarks of diffusers and transformers off, and back to what they were."""
    libraries = [name for name in ("diffusers", "transformers") if find_spec(name) is not None]
    with ExitStack() as after:
        for logging in [import_module(f"{name}.utils.logging") for name in libraries]:
            after.callback(logging.set_verbosity, logging.get_verbosity())
            if logging.is_progress_bar_enabled():
                after.callback(logging.enable_progress_bar)
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        yield


def _family(pipeline: type[Any], sizes: dict[str, int]) -> Any:
    """The denoiser class for a pipeline's class, which is to take these sizes."""
    for base in pipeline.__mro__:
        if base.__name__ in _FAMILIES:
            _check_sizes(_FAMILIES[base.__name__], sizes)
            return _FAMILIES[base.__name__]
    raise ValueError(f"the pipeline must be one of {', '.join(_FAMILIES)}, not {pipeline.__name__}")


def _check_sizes(family: type[Denoiser], sizes: dict[str, int]) -> None:
    """Refuses sizes that the model has of its own."""
    for name, size in sizes.items():
        if name not in family.sizes:
            why = "has no frames" if name == "frames" else "says it in its config"
            raise ValueError(f"{name} must be left out for a {family.__name__} model, which {why}, not {size}")


def _open_pipeline(name: str, device: torch.device | str, options: dict[str, Any], sizes: dict[str, int]) -> Denoiser:
    import diffusers

    with _described(name):
        index = diffusers.DiffusionPipeline.load_config(name)
    family = str(index.get("_class_name"))
    if find_spec("transformers") is None and getattr(_FAMILIES.get(family), "kind", None) == "text":
        raise ImportError(f"{name} is a {family}, a text model, which needs: pip install 'bigain[text]'")
    wrapper = _family(getattr(diffusers, family, diffusers.DiffusionPipeline), sizes)  # before gigabytes are loaded
    networks: dict[str, Any] = {}
    for part, entry in index.items():
        network = _network_class(entry)
        if entry == [None, None]:
            networks[part] = None  # or a pipeline asks for what its config says it does without
        if network is not None:
            # A part may have no such variant: then the pipeline takes its plain weights.
            with suppress(*([] if options["variant"] is None else [OSError])):
                networks[part] = _network(network, name, part, options)
    with _described(name):
        pipe = diffusers.DiffusionPipeline.from_pretrained(name, **networks, **options)
        denoiser: Denoiser = wrapper(pipe.to(device), **sizes)
    return denoiser


def _open_parts(folder: Path, device: torch.device | str, options: dict[str, Any]) -> Denoiser:
    """A folder without ``model_index.json``: a DiT and its scheduler, with or without an autoencoder."""
    import diffusers
    from diffusers import AutoencoderKL, DiTTransformer2DModel

    configs = (folder / "transformer" / "config.json", folder / "scheduler" / "scheduler_config.json")
    for path in configs:
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} must hold model_index.json (a pipeline), or transformer/ and scheduler/; {path} is missing"
            )
    model_name, scheduler_name = (_config(path).get("_class_name") for path in configs)
    if model_name != "DiTTransformer2DModel":
        raise ValueError(
            f"{folder / 'transformer'} must hold a DiTTransformer2DModel, as there is no model_index.json, "
            f"not {model_name}"
        )
    scheduler_class = getattr(diffusers, str(scheduler_name), None)
    if scheduler_class is None or not issubclass(scheduler_class, diffusers.SchedulerMixin):
        raise ValueError(f"{folder / 'scheduler'} must hold a scheduler of diffusers, not {scheduler_name}")
    model = _network(DiTTransformer2DModel, folder, "transformer", options)
    vae = _network(AutoencoderKL, folder, "vae", options) if (folder / "vae").is_dir() else None
    with _described(folder / "scheduler"):
        scheduler = scheduler_class.from_pretrained(folder, subfolder="scheduler")
    labels = _config(folder / "labels.json") if (folder / "labels.json").is_file() else None
    with _described(folder):
        vae = None if vae is None else vae.to(device)
        return ClassConditional(model=model.to(device), scheduler=scheduler, vae=vae, labels=labels)


def _network_class(entry: Any) -> Any:
    """The class of a network that an entry of model_index.json names, such as ["diffusers", "AutoencoderKL"]."""
    if not isinstance(entry, (list, tuple)) or len(entry) != 2 or entry[0] not in ("diffusers", "transformers"):
        return None
    network = getattr(import_module(entry[0]), str(entry[1]), None)
    return network if isinstance(network, type) and issubclass(network, torch.nn.Module) else None


def _network(network: Any, name: Path | str, part: str, options: dict[str, Any]) -> Any:
    """A network with all its weights: both libraries would draw at random what the file lacks."""
    with _described(f"{name}/{part}"):
        model, report = network.from_pretrained(name, subfolder=part, output_loading_info=True, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{name}/{part} must have all weights of {network.__name__}; {len(missing)} missing: "
            f"{', '.join(missing[:3])}"
        )
    return model


@contextmanager
def _described(what: Path | str) -> Iterator[None]:
    """Turns what diffusers and transformers raise on configs and weights that they cannot take into a ValueError."""
    unusable = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError)
    try:
        yield
    except (OSError, ImportError, torch.OutOfMemoryError):
        raise
    except (*unusable, SafetensorError) as error:
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{what} must hold configs and weights of one model, not these: {why}") from error


def _config(file: Path) -> dict[str, Any]:
    """A config's content; a ValueError where it is not a JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} must be JSON, not this: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object, not {type(content).__name__}")
    return content
