"""What a classifier says of one image: the class, how surely, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Prediction:
    """The classes of one image, by the model's errors under each.

    Args:
        id: of the image.
        prediction: the best class, the first of ``ranking``.
        ranking: all classes, best first, as positions in the classifier's classes.
        stage: per condition, how many rounds of the elimination it survived.
        errors: (conditions, timesteps) float32, NaN where not evaluated.
        forwards: of the model that were spent on the image.
        groups: the class of each condition; () where each condition is its own class.
        names: of the classes; () where they have none.
        elements: of a sample, over which the errors are means.
        weights: of the timesteps, of mean 1; () where all are 1.
        temperature: divides the errors where they become probabilities.
    """

    id: str
    prediction: int
    ranking: tuple[int, ...]
    stage: tuple[int, ...]
    errors: Floats
    forwards: int = 0
    groups: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    elements: int = 1
    weights: tuple[float, ...] = ()
    temperature: float = 1.0

    def __repr__(self) -> str:
        shown = f"prediction={self.prediction}, name={self.name!r}, probability={self.probability:.3f}"
        return f"{type(self).__name__}({shown}, margin={self.margin:.2e}, forwards={self.forwards}, id={self.id!r})"

    @property
    def name(self) -> str:
        """Of the predicted class."""
        return self.names[self.prediction] if self.names else str(self.prediction)

    @property
    def margin(self) -> float:
        """The second class's mean error minus the best one's, over the timesteps that they share; 0 is a tie.

        A class counts by its best condition.
        """
        weighted, classes = self._weighted, self._groups
        order = rank(weighted, self.stage)
        second = next(condition for condition in order if classes[condition] != self.prediction)
        return float(np.nanmean(weighted[second] - weighted[order[0]]))

    @property
    def probability(self) -> float:
        """Of the predicted class; see :meth:`probabilities`."""
        return self.probabilities()[self.prediction]

    def probabilities(self, temperature: float | None = None) -> tuple[float, ...]:
        """Of all classes, of sum 1: the softmax of the negative errors, over the timesteps that they share.

        An error counts as in Li et al. (2023): as the norm over a sample, that is its mean times ``elements``. What the
        survivors of a round have together is divided among them anew. A class counts by its best condition.

        At temperature 1 they order images by how sure the model is, and no more: the errors are no likelihoods, and
        larger samples give probabilities closer to 0 and 1. :meth:`DiffusionClassifier.fit` finds a temperature at
        which the values mean something.

        Args:
            temperature: divides the errors; above 0, or a ValueError. The fitted one if left out.
        """
        temperature = self.temperature if temperature is None else temperature
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        weighted, classes = self._weighted, self._groups
        of_condition = probabilities(weighted * self.elements, self.stage, temperature).tolist()
        best: dict[int, float] = {}
        for condition in rank(weighted, self.stage):
            best.setdefault(classes[condition], of_condition[condition])
        total = sum(best.values())
        return tuple(best[position] / total for position in sorted(best))

    @property
    def _groups(self) -> tuple[int, ...]:
        return self.groups or tuple(range(len(self.stage)))

    @property
    def _weighted(self) -> npt.NDArray[np.float64]:
        errors: npt.NDArray[np.float64] = self.errors.astype(np.float64)
        return errors * self.weights if self.weights else errors


def rank(errors: npt.NDArray[np.floating], stage: Sequence[int]) -> list[int]:
    """All conditions, best first: by the rounds survived, then by the mean error over the timesteps they share.

    Errors are (conditions, timesteps), NaN where not evaluated. Conditions that survived equally many rounds were
    evaluated at the same timesteps; a mean over 5 timesteps is never compared with one over 20.
    """
    # Row by row, so that the sums are those of `mean` to the last bit; the order of numbers breaks ties.
    means = np.nanmean(np.ascontiguousarray(errors), axis=1, dtype=np.float64)
    order: list[int] = np.lexsort((means, -np.asarray(stage))).tolist()
    return order


def probabilities(
    errors: npt.NDArray[np.floating], stage: Sequence[int], temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """A probability for each condition, (conditions,) float64 of sum 1, from errors and rounds as in :func:`rank`.

    The softmax of the negative mean errors, divided by the temperature. All conditions share the timesteps of the
    first round only, so it is taken round by round: what the survivors of a round have together is divided among them
    anew, by the timesteps that they share. The condition that :func:`rank` puts first has the highest probability.
    """
    survived = np.asarray(stage)
    result = np.ones(len(survived))
    for number in range(max(survived)):
        alive = np.flatnonzero(survived >= number)
        shared = np.isfinite(errors[alive]).all(0)
        logits = -errors[alive][:, shared].mean(1, dtype=np.float64) / temperature
        share = np.exp(logits - logits.max())
        result[alive] = result[alive].sum() * share / share.sum() if number else share / share.sum()
    return result


def mean(row: npt.NDArray[np.floating]) -> float:
    """Of one condition's errors over what was evaluated."""
    return float(np.nanmean(row, dtype=np.float64))
