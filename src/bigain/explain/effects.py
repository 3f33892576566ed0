"""The numbers of an analysis: its pieces, what they do to classification, and the file that holds them. No PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigain.methods import Compression
from bigain.metrics.accuracy import paired_difference
from bigain.run.files import read_json

FORMAT = "bigain analysis 1"


@dataclass(frozen=True)
class Spectrum:
    """What stays of the tokens in one layer, by radial frequency: (bands,) each, band 0 the lowest.

    Args:
        layer: number of the transformer block.
        power: of the tokens, the mean over channels, images and timesteps.
        kept: power of what stays of them, in units of ``power``; None in a band where they have none.
        error: power of the difference, in the same units.
    """

    layer: int
    power: tuple[float, ...]
    kept: tuple[float | None, ...]
    error: tuple[float | None, ...]


@dataclass(frozen=True)
class Piece:
    """One method in some layers, or no compression, image by image.

    Args:
        change: mean squared difference of the predictions under the true class to those without compression.
        gaps: (images,) error of the best wrong class minus that of the true one, by their means over the timesteps.
        correct: (images,) whether the class of the least mean error is true.
        gaps_at, correct_at: (timesteps, images) the same of each timestep alone.
        spectra: of the layers in which the method acts, in their order.
    """

    change: float
    gaps: tuple[float, ...]
    correct: tuple[bool, ...]
    gaps_at: tuple[tuple[float, ...], ...]
    correct_at: tuple[tuple[bool, ...], ...]
    spectra: tuple[Spectrum, ...] = ()


@dataclass(frozen=True)
class Effect:
    """What a piece does to classification, over all images.

    Args:
        change: of the prediction, as in `Piece`.
        gap: the mean.
        shift, deviation: mean and standard deviation over the images of the gap minus that without compression.
        accuracy: share of the images.
        difference, low, high: accuracy minus that without compression, with its paired 95% interval.
        gap_at, accuracy_at: (timesteps,) of each timestep alone.
    """

    change: float
    gap: float
    shift: float
    deviation: float
    accuracy: float
    difference: float
    low: float
    high: float
    gap_at: tuple[float, ...]
    accuracy_at: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was measured of a model under some methods.

    Args:
        identity: what all of it depends on.
        facts: what tables and pictures need to know: the data's name, ids and labels of the images, the timesteps, the
            names of the model's layers, the versions.
        layers: the methods that were asked for, each with the layers in which it acts.
        pieces: by spec; "none", every method, and every method in each of its layers alone.
    """

    identity: dict[str, Any]
    facts: dict[str, Any]
    layers: dict[str, tuple[int, ...]]
    pieces: dict[str, Piece]

    @property
    def methods(self) -> tuple[str, ...]:
        """The specs of which every piece was measured."""
        done = self.pieces.keys()
        return tuple(name for name in self.layers if {"none", name, *self.alone(name).values()} <= done)

    def alone(self, method: str) -> dict[int, str]:
        """The spec of a method in each of its layers alone."""
        return {layer: in_layer(method, layer) for layer in self.layers[method]}

    def effect(self, name: str) -> Effect:
        """Of the piece of that spec."""
        piece, plain = self.pieces[name], self.pieces["none"]
        shifts = np.subtract(piece.gaps, plain.gaps)
        difference, low, high = paired_difference(piece.correct, plain.correct)
        return Effect(
            change=piece.change,
            gap=float(np.mean(piece.gaps)),
            shift=float(shifts.mean()),
            deviation=float(shifts.std(ddof=1)),
            accuracy=float(np.mean(piece.correct)),
            difference=difference,
            low=low,
            high=high,
            gap_at=tuple(np.mean(piece.gaps_at, axis=1).tolist()),
            accuracy_at=tuple(np.mean(piece.correct_at, axis=1).tolist()),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, and the effects of the pieces, for whoever reads the file."""
        compared = self.pieces.keys() - {"none"} if "none" in self.pieces else set()
        return {
            "identity": self.identity,
            "facts": self.facts,
            "layers": self.layers,
            "effects": {name: asdict(self.effect(name)) for name in self.pieces if name in compared},
            "pieces": {name: asdict(piece) for name, piece in self.pieces.items()},
        }


def read_analysis(path: Path) -> Analysis:
    """Reads the file of an analysis, finished or not.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is something else.
    """
    content = read_json(path, FORMAT)
    try:
        layers = {name: tuple(numbers) for name, numbers in content["layers"].items()}
        pieces = {name: _piece(values) for name, values in content["pieces"].items()}
        return Analysis(content["identity"], content["facts"], layers, pieces)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must be a whole file of bigain analyse, not this: {error!r}") from error


def in_layer(method: str, layer: int) -> str:
    """The spec of what acts in one layer, in that layer alone; ``method`` may be several in different layers."""
    return Compression(
        replace(one, levels=(1,), layers=(layer,))
        for one in Compression.of(method)
        if one.layers is None or layer in one.layers
    ).text


def margins(
    errors: npt.NDArray[Any], groups: Sequence[int], labels: Sequence[Sequence[int]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """By how much the true class beats the best wrong one, and whether the diffusion classifier finds it.

    An error is the mean over the timesteps, and a class stands where its best condition stands; of several true
    classes the best counts.

    Args:
        errors: (images, conditions, timesteps), all evaluated.
        groups: (conditions,) the class of each condition.
        labels: per image its true classes; at least one class must be wrong.

    Returns:
        (images,) gaps, above 0 where the true class wins; and (images,) whether the class of the least error is true,
        the first one on ties.
    """
    means = errors.astype(np.float64).mean(axis=2)  # (images, conditions)
    true = np.array([[group in shown for group in groups] for shown in labels])
    best_true = np.where(true, means, np.inf).min(axis=1)
    best_wrong = np.where(true, np.inf, means).min(axis=1)
    return best_wrong - best_true, true[np.arange(len(means)), means.argmin(axis=1)]


def _piece(values: dict[str, Any]) -> Piece:
    spectra = tuple(Spectrum(**_tuples(one)) for one in values["spectra"])
    return Piece(**_tuples({**values, "spectra": []}) | {"spectra": spectra})


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """The same with tuples for JSON's lists."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return {name: frozen(value) for name, value in values.items()}
