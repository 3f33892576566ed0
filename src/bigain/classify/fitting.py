"""What a few images tell about a classifier: its most telling timesteps, their weights, a threshold, a temperature.

The errors of a class at different timesteps enter a conditional logit model: the probability of a class is the softmax
of its negative weighted errors (McFadden 1974). Its weights, which are not negative, are fitted by maximum likelihood
with a penalty on their squares; timesteps enter one by one, the one that would raise the likelihood most first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bigain.classify.elimination import Contest
from bigain.classify.prediction import Prediction
from bigain.classify.racing import Racing

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_FORMAT = "bigain classifier 1"
_LEAST = 1e-6  # probability of a label that counts, so that one lost class does not decide the temperature
_COARSE = 57  # temperatures to begin with, each 1.6 times the one before
_PENALTY = 0.05  # chosen on 200 validation images of glyphs-dit, 50 of them fitted on: 0.001 and 0.01 did worse


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What :func:`fit` found; a file keeps it beside a model's presets.

    Args:
        timesteps: the most telling first.
        weights: of the timesteps, of mean 1.
        threshold: of :class:`bigain.classify.racing.Racing`, for sums of weighted errors.
        error_rate: that the threshold keeps.
        temperature: of the probabilities.
        model, data: that it was fitted on, in words; None where unknown.
        images: how many of them.
    """

    timesteps: tuple[int, ...]
    weights: tuple[float, ...]
    threshold: float
    error_rate: float
    temperature: float
    images: int
    model: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        if not self.timesteps or len(set(self.timesteps)) != len(self.timesteps) or min(self.timesteps) < 0:
            raise ValueError(f"timesteps must be different integers from 0 on, not {self.timesteps}")
        if len(self.weights) != len(self.timesteps) or not all(w >= 0 for w in self.weights) or not any(self.weights):
            raise ValueError(f"weights must be one of at least 0 for each timestep, not {self.weights}")
        for name in ("threshold", "temperature"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ValueError(f"{name} must be above 0, not {value}")

    def write(self, path: Path) -> None:
        """Writes a JSON file that ``read`` reads back."""
        path.write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Fitted:
        """Reads what ``write`` wrote; a ValueError that names the file for something else."""
        if not path.is_file():
            raise FileNotFoundError(f"fitted must be a file of `bigain fit`, and there is no fit at {path}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != _FORMAT:
                raise ValueError("of another format")
            lists = {name: tuple(values[name]) for name in ("timesteps", "weights")}
            return cls(**{one.name: values[one.name] for one in fields(cls)} | lists)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} must be a file of `bigain fit`, in the format {_FORMAT!r}: {error}") from error


def fit(
    errors: Doubles,
    labels: Integers | None,
    timesteps: Sequence[int],
    *,
    count: int,
    error_rate: float,
    groups: Sequence[int],
    elements: int = 1,
) -> Fitted:
    """Chooses ``count`` of the timesteps, and what goes with them.

    One half of the images gives timesteps and weights. The other half gives the threshold, as the conformal quantile of
    what the race must allow for its winner to be that of a full evaluation, and the temperature: so the rate holds for
    new images of the same kind.

    Args:
        errors: (images, conditions, timesteps), of the full evaluation.
        labels: (images,) true classes; None for the winners of the full evaluation.
        timesteps: those of the errors.
        count: how many to choose at most; those of weight 0 are left out.
        error_rate: share of images on which a race may end otherwise than a full evaluation, in (0, 1).
        groups: the class of each condition.
        elements: of a sample, over which errors are means.

    Raises:
        ValueError: there are too few images for that rate.
    """
    needed = math.ceil(1 / error_rate) - 1  # from here on the quantile is one of the values
    images = len(errors)
    if images // 2 < needed:
        raise ValueError(f"images must be at least {2 * needed} for an error_rate of {error_rate:g}, not {images}")
    classes = of_classes(errors, groups)
    true = classes.mean(2).argmin(1) if labels is None else labels
    first, second = slice(0, None, 2), slice(1, None, 2)
    chosen, weights = select(classes[first], true[first], count)
    sums = np.cumsum(errors[second][:, :, chosen] * weights, axis=2)
    threshold = conformal_threshold(sums, error_rate)
    scale = float(np.mean(weights))
    fitted = Fitted(
        timesteps=tuple(int(timesteps[position]) for position in chosen),
        weights=tuple(_rounded(weight) for weight in weights / scale),
        threshold=_rounded(threshold / scale),
        error_rate=error_rate,
        temperature=1.0,
        images=images,
    )
    races = [_race(own[:, chosen], fitted, groups, elements) for own in errors[second]]
    return replace(fitted, temperature=_temperature(races, true[second]))


def of_classes(errors: Doubles, groups: Sequence[int]) -> Doubles:
    """(images, classes, timesteps) errors: of each class's best condition on the image, by the mean over timesteps."""
    own = np.asarray(groups)
    means = errors.mean(2)
    result = np.empty((len(errors), own.max() + 1, errors.shape[2]))
    for group in range(own.max() + 1):
        members = np.flatnonzero(own == group)
        best = members[means[:, members].argmin(1)]
        result[:, group] = errors[np.arange(len(errors)), best]
    return result


def select(errors: Doubles, labels: Integers, count: int) -> tuple[list[int], Doubles]:
    """Positions of up to ``count`` timesteps, the most telling first, and their weights in nats per unit of error."""
    own = errors[np.arange(len(labels)), labels]
    gaps = errors - own[:, None]
    scale = gaps.std(axis=(0, 1))
    gaps = gaps / np.where(scale > 0, scale, 1.0)
    chosen: list[int] = []
    weights = np.zeros(0)
    for _ in range(min(count, errors.shape[2])):
        gradient = _gradient(gaps, gaps[:, :, chosen] @ weights)
        gradient[chosen] = np.inf
        if chosen and gradient.min() >= 0:
            break
        chosen.append(int(gradient.argmin()))
        weights = _weights(gaps[:, :, chosen], np.append(weights, 0.0))
    told = np.flatnonzero(weights > 0)
    if not len(told):
        raise ValueError("labels must be those of the images: under these no timestep tells the classes apart")
    return [chosen[i] for i in told], weights[told] / scale[np.array(chosen)[told]]


def conformal_threshold(sums: Doubles, error_rate: float) -> float:
    """The least threshold with which a race over (images, classes, rounds) sums of errors keeps its rate.

    Per image: how far the winner of the last round was ever behind. The ceil((n + 1) (1 - rate))-th smallest of these
    is exceeded by a new image with a probability of at most the rate, where images are exchangeable.
    """
    winners = sums[:, :, -1].argmin(1)
    behind = (sums[np.arange(len(sums)), winners] - sums.min(1)).max(1)
    place = math.ceil((len(behind) + 1) * (1 - error_rate))
    return max(float(np.sort(behind)[place - 1]), float(np.finfo(np.float32).tiny))


def _shares(sums: Doubles) -> Doubles:
    """The softmax of the negative sums over classes, (images, classes)."""
    logits = -sums
    shares = np.exp(logits - logits.max(1, keepdims=True))
    result: Doubles = shares / shares.sum(1, keepdims=True)
    return result


def _gradient(gaps: Doubles, sums: Doubles) -> Doubles:
    """Of the mean negative log-likelihood by each timestep's weight, (timesteps,); gaps are to the true class."""
    result: Doubles = -np.einsum("ic,ict->t", _shares(sums), gaps) / len(gaps)
    return result


def _weights(gaps: Doubles, start: Doubles) -> Doubles:
    """The weights of highest penalised likelihood, none below 0."""
    from scipy.optimize import minimize

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        sums = gaps @ weights
        shift = sums.min(1)
        value = np.log(np.exp(shift[:, None] - sums).sum(1)) - shift
        return float(value.mean() + _PENALTY * weights @ weights / 2), _gradient(gaps, sums) + _PENALTY * weights

    result: Doubles = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start)).x
    return result


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _race(errors: Doubles, fitted: Fitted, groups: Sequence[int], elements: int) -> Prediction:
    """What a race says of an image whose errors are all known."""
    contest = Contest("", np.full(errors.shape, np.nan, dtype=np.float32), np.array(fitted.weights), telling=True)
    for ask in Racing(errors.shape[1], threshold=fitted.threshold).rounds(contest):
        where = np.ix_(ask.conditions, ask.positions)
        contest.errors[where] = errors[where]
    return contest.prediction(tuple(groups), elements=elements)


def _temperature(races: Sequence[Prediction], labels: Integers) -> float:
    """At which the probabilities of the labels have the highest likelihood, about 1e-6 to 1e6.

    Of n images a label counts (n + 1) / (n + 2), the other classes share the rest (Platt 1999): however few images, and
    were all of them right, it does not follow that the next one must be.
    """
    from scipy.optimize import minimize_scalar

    doubt = 1 / (len(races) + 2)

    def loss(log: float) -> float:
        total = 0.0
        for race, label in zip(races, labels, strict=True):
            logs = np.log(np.maximum(race.probabilities(math.exp(log)), _LEAST))
            others = (logs.sum() - logs[label]) / max(len(logs) - 1, 1)
            total -= float((1 - doubt) * logs[label] + doubt * others)
        return total / len(races)

    # Where all probabilities are 0 or 1, or all alike, the loss is flat, and hides its valley from a search.
    coarse = np.linspace(-math.log(1e6), math.log(1e6), _COARSE)
    best, step = min(coarse, key=loss), coarse[1] - coarse[0]
    return _rounded(math.exp(minimize_scalar(loss, bounds=(best - step, best + step), method="bounded").x))
