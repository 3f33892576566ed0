"""The models of the page, the embedded ones and that which was named at the start, and what it offers for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bigain import zoo
from bigain.backbones.families import layout
from bigain.diffusion import ClassConditional, Denoiser
from bigain.methods import METHODS, Compression, TokenMerging
from bigain.run.cost import forward_of
from bigain.run.settings import ModelSettings
from bigain.zoo import presets
from bigain.zoo.published import sample_sizes


@dataclass(frozen=True)
class Opened:
    """A model that is open."""

    name: str
    denoiser: Denoiser

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes; () for a model that reads prompts."""
        return self.denoiser.names if isinstance(self.denoiser, ClassConditional) else ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of its transformer blocks."""
        return tuple(layer.name for layer in layout(self.denoiser.model).layers)

    @property
    def methods(self) -> list[tuple[str, str]]:
        """What can be chosen, in words and as text: its presets, and every method."""
        own = [name for name in presets.names() if name.startswith(f"{self.name}/")]
        made = [(method.title, name) for name, method in METHODS.items()]
        return [*((f"preset {name.partition('/')[2]}", name) for name in own), *made]

    @property
    def fitted(self) -> Path | None:
        """The file of what its classifier was fitted to, where there is one."""
        return self._kept("classifier.json")

    @property
    def offers(self) -> Path | None:
        """The file of what its layers offer: of a run of `bigain allocate` in this folder, or beside the weights."""
        own = Path("runs", "allocate", Path(self.name).name, "offers.json")
        return own if own.is_file() else self._kept("offers.json")

    def _kept(self, file: str) -> Path | None:
        path = zoo.path(self.name) / file if self.name in zoo.names() else None
        return path if path is not None and path.is_file() else None


class Models:
    """Opens each model once."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.open: dict[str, Opened] = {}  # by name

    @property
    def names(self) -> tuple[str, ...]:
        """That which was named at the start comes first; of the embedded ones those of images."""
        images = [name for name in zoo.denoisers() if "frames" not in sample_sizes(zoo.path(name))]
        return tuple(dict.fromkeys((self.settings.model, *images)))

    def __getitem__(self, name: str) -> Opened:
        """Open and warm; a ValueError for a name that is not on the page, or a model of videos."""
        if name not in self.names:
            raise ValueError(f"model must be one of {', '.join(self.names)}, not {name!r}")
        if name not in self.open:
            denoiser = replace(self.settings, model=name).open(quiet=True)
            if denoiser.is_video:
                raise ValueError(f"model must be one of images on this page, not {name!r}; try bigain generate")
            forward_of(denoiser, denoiser.any_condition, denoiser.process.timesteps(1))()
            self.open[name] = Opened(name, denoiser)
        return self.open[name]


def merges(method: str) -> bool:
    """Whether a choice has a share of tokens for its strength."""
    return method in METHODS and issubclass(METHODS[method], TokenMerging)


def pools(method: str) -> bool:
    """Whether a choice has a factor for its strength."""
    return method in METHODS and not merges(method)


def chosen(method: str, ratio: float, factor: int, layers: list[int]) -> Compression:
    """A choice on the page as methods; a ValueError where a field is out of its range.

    Args:
        method: "none", a preset or the name of a method.
        ratio, factor: of which that counts which the method has.
        layers: numbers of transformer blocks; [] leaves the method its own.
    """
    if method not in METHODS:
        return Compression.of(presets.text_of(method))
    strength = f"ratio={ratio:g}" if merges(method) else f"factor={factor}"
    where = f",layers={'/'.join(map(str, sorted(layers)))}" if layers else ""
    return Compression.of(f"{method}:{strength}{where}")
