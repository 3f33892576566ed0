"""What ``apply`` takes as a method, and presets: methods that were chosen for one model, and are for no other."""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from bigain.backbones.families import find_model
from bigain.methods import Compression, Method
from bigain.zoo import presets as files
from bigain.zoo.presets import Preset

Applicable: TypeAlias = Method | Iterable[Method] | str | Path


def preset(name: str, model: str) -> Compression:
    """A preset, "quality", "balanced" or "fast", of the embedded model that it was measured on; ValueError for others.

    Example:
        >>> bigain.apply(model, bigain.preset("balanced", "glyphs-dit"))  # or "glyphs-dit/balanced", which is checked
    """
    return Compression.of(files.of_model(model, name).methods)


def resolve(methods: Applicable, model: nn.Module | None, *, data: str | None = None) -> Compression:
    """The methods that are meant, once a preset among them is known to be for the model.

    Args:
        methods: configs, or a text: a spec, "MODEL/NAME" for a preset, or the path of a preset file (.json).
        model: which is to be compressed; None leaves out the comparison with what a preset was made for.
        data: name of the data set that it runs on, where that is known.

    Raises:
        TypeError: ``methods`` is none of these.
        ValueError: a text that cannot be read, or a preset that was made for another architecture; names both. One for
            other weights, another dtype or other data is a UserWarning, which says what differs.
        FileNotFoundError: there is no such file.
    """
    if not isinstance(methods, str | Path):
        return Compression.of(methods)
    read = files.read(methods)
    if read is not None and model is not None:
        _compare(read, find_model(model), data)
    return Compression.of(str(methods) if read is None else read.methods)


def preset_file(
    methods: Applicable, model: nn.Module, *, name: str, data: str, about: Mapping[str, object] | None = None
) -> str:
    """The content of a preset file, which ``apply`` and the commands read: methods, and what they were chosen for.

    Args:
        methods: as ``resolve`` takes them, chosen for ``model`` on the data set named ``data``.
        name: of the model's weights: an embedded model's, a Hub id or a folder.
        about: whatever else is to be kept, as JSON takes it.
    """
    model = find_model(model)
    return files.content(
        Preset(
            source=name,
            methods=resolve(methods, model, data=data).text,
            model=name,
            architecture=architecture(model),
            dtypes=(_dtype(model),),
            data=data,
            about=about or {},
        )
    )


def architecture(model: Any) -> str:
    """A fingerprint of what the weights fit: the class, and a digest of its config.

    Only what differs from the defaults of the class counts, so that a setting that a version of diffusers adds changes
    no fingerprint; names of files and versions do not count.
    """
    parameters = inspect.signature(type(model).__init__).parameters
    defaults = {name: _json(parameter.default) for name, parameter in parameters.items()}
    own = {name: _json(value) for name, value in model.config.items() if not name.startswith("_")}
    own = {name: value for name, value in own.items() if value != defaults.get(name)}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    return f"{type(model).__name__} {digest[:12]}"


def weights_name(model: Any) -> str | None:
    """Where the weights are from: an embedded model's name, a Hub id or a folder; None if that is not known."""
    source = model.config.get("_name_or_path")
    if not source:
        return None
    return files.embedded_name(Path(source)) or next(
        (part[len("models--") :].replace("--", "/") for part in Path(source).parts if part.startswith("models--")),
        str(source),
    )


def _compare(read: Preset, model: nn.Module, data: str | None) -> None:
    """Refuses a preset for another architecture, and warns of what else differs."""
    own, name = architecture(model), weights_name(model)
    if read.architecture is not None and read.architecture != own:
        raise ValueError(
            f"preset {read.source} must be applied to the architecture that it was made for, {read.architecture} "
            f"({read.model}), not to {own} ({name or 'weights without a name'})"
        )
    differences = []
    if read.architecture is None:
        differences.append(f"it does not say for which architecture, and this is {own}")
    if read.model is not None and not _same_weights(read.model, name):
        differences.append(f"its weights were {read.model}, not {name or 'those given, which have no name'}")
    if read.dtypes and _dtype(model) not in read.dtypes:
        differences.append(f"its dtype was {' or '.join(read.dtypes)}, not {_dtype(model)}")
    if data is not None and read.data is not None and read.data != data:
        differences.append(f"its data were {read.data}, not {data}")
    if differences:
        warnings.warn(f"preset {read.source} was chosen for something else: {'; '.join(differences)}", stacklevel=4)


def _same_weights(made_for: str, name: str | None) -> bool:
    if name is None or name == made_for:
        return name == made_for
    folder = Path(made_for)
    return folder.is_dir() and folder.resolve() in (Path(name).resolve(), *Path(name).resolve().parents)


def _dtype(model: nn.Module) -> str:
    return str(model.dtype).removeprefix("torch.")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
