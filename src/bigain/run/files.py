"""Files that are whole and say what they are; and what they record of the classes, the weights and the versions.

Nothing here imports PyTorch before it is needed.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    import torch

    from bigain.data import ImageCollection
    from bigain.diffusion import ClassConditional, Denoiser

_Made = TypeVar("_Made")
_PACKAGES = ("bigain", "torch", "diffusers", "transformers", "torchmetrics", "numpy", "pillow", "scipy")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either the old or the new one, whenever the process is killed."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


def write_json(path: Path, form: str, content: dict[str, Any]) -> None:
    """Writes a JSON file whose field "format" is ``form``; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"format": form, **content}, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, form: str, what: str, made: Callable[[dict[str, Any]], _Made]) -> _Made:
    """What is ``made`` of the content of a file that ``write_json`` wrote, which is to hold ``what``.

    FileNotFoundError where it is missing; ValueError, with its name, where it is no such JSON or of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8, and brackets without end
        raise ValueError(f"{path} must be a JSON file of format {form!r}, not this: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object of format {form!r}, not a {type(content).__name__}")
    if (found := content.pop("format", None)) != form:
        raise ValueError(f"{path} must have the format {form!r}, not {found!r}")
    try:
        return made(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} must hold {what}, not this: {why}") from error


def encode_png(image: Any) -> bytes:
    """uint8 (H, W, 3) as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def class_conditions(denoiser: Denoiser, data: ImageCollection) -> tuple[tuple[str | int, ...], ...]:
    """Per class what the model is asked for: its prompts, or its label in a class-conditional model.

    ValueError where a class-conditional model does not know a class by its name.
    """
    if denoiser.kind == "text":
        return data.prompts or ()
    model = cast("ClassConditional", denoiser)
    return tuple((label,) for label in data.labels_in(model.labels, model.classes))


def fingerprint(*networks: torch.nn.Module) -> str:
    """16 hexadecimal digits that change with the networks' weights: a digest of 64 values of each parameter."""
    import torch

    digest = hashlib.sha256()
    for name, parameter in itertools.chain.from_iterable(network.named_parameters() for network in networks):
        flat = parameter.detach().flatten()
        places = torch.linspace(0, len(flat) - 1, min(64, len(flat)), dtype=torch.float64).long().to(flat.device)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(flat[places].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of Python and the packages that results depend on."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):  # a clone that is not installed, or an extra that is not needed
            installed[package] = version(package)
    return installed


def identity_hash(identity: dict[str, Any]) -> str:
    """SHA-256 of an identity's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(stored: Mapping[str, Any], requested: Mapping[str, Any]) -> str:
    """The fields in which two identities differ, with both values; empty where they are the same."""
    return "; ".join(
        f"{name} is {json.dumps(stored.get(name))} there and {json.dumps(requested.get(name))} here"
        for name in dict.fromkeys([*requested, *stored])
        if stored.get(name) != requested.get(name)
    )
