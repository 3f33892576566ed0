"""What every measurement begins with: the classes as the model is asked for them, the weights, versions and a bar."""

from __future__ import annotations

import hashlib
import itertools
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import torch
from tqdm.auto import tqdm

from bigain.data import ImageCollection
from bigain.diffusion import ClassConditional, Denoiser

_PACKAGES = ("bigain", "torch", "diffusers", "transformers", "torchmetrics", "numpy", "pillow", "scipy")


def class_conditions(denoiser: Denoiser, data: ImageCollection) -> tuple[tuple[str | int, ...], ...]:
    """Per class what the model is asked for: its prompts, or its label in a class-conditional model.

    Raises:
        ValueError: a class-conditional model does not know a class by its name.
    """
    if denoiser.kind == "text":
        return data.prompts or ()
    model = cast(ClassConditional, denoiser)
    return tuple((label,) for label in data.labels_in(model.labels, model.classes))


def fingerprint(*networks: torch.nn.Module) -> str:
    """16 hexadecimal digits that change with the networks' weights: a digest of 64 values of each parameter."""
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
        try:
            installed[package] = version(package)
        except PackageNotFoundError:  # a clone that is not installed, or an extra that is not needed
            continue
    return installed


def progress_bar(total: int, shown: bool, **options: Any) -> Any:
    """A progress bar; in a log file it adds a line every half minute instead of ten a second."""
    return tqdm(total=total, disable=not shown, mininterval=0.1 if sys.stderr.isatty() else 30, **options)
