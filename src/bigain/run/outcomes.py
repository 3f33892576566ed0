"""What is kept of each classified image once its row was read: a few numbers, so that all images fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # late: tables of finished runs must not wait for torch
    from bigain.run.store import Classified, Store


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Of one image under one method."""

    id: str
    labels: tuple[int, ...]  # its true classes
    prediction: int
    confidence: float  # the probability of the prediction
    forwards: int
    ranking: npt.NDArray[Any]  # all classes, best first, where images have several labels; else empty

    @property
    def right(self) -> bool:
        """Whether the prediction is one of the labels."""
        return self.prediction in self.labels


def outcomes(store: Store, spec: str) -> list[Outcome]:
    """Of the images that a method classified, in the order of the data."""
    return [_outcome(row, store.facts["multi_label"]) for row in store.classified(spec)]


def _outcome(row: Classified, multi_label: bool) -> Outcome:
    ranking = row.ranking if multi_label else ()
    compact = np.array(ranking, dtype=np.min_scalar_type(len(ranking)))
    return Outcome(row.id, row.labels, row.prediction, row.probability, row.forwards, compact)
