"""What a run says of a claim: agrees, disagrees, or cannot tell, by a 95% interval of the paired difference."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.stats import binom

from bigain.evaluate.claims import Claim
from bigain.evaluate.store import Generated, Store
from bigain.metrics.accuracy import paired_difference
from bigain.metrics.distribution import fid

_RESAMPLES = 200
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """A claim, and by how much its better method is better, in the measure's own direction.

    Args:
        gain: accuracy points, FID, or share of the FLOPs or the time of the other method: positive where the claim
            holds. None where it was not measured.
        low, high: its 95% interval; equal to it for FLOPs, which are counted. None where there is none.
    """

    claim: Claim
    gain: float | None
    low: float | None
    high: float | None

    @property
    def word(self) -> str:
        """ "agrees", "disagrees", "cannot tell" or "not measured"."""
        if self.gain is None:
            return "not measured"
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "cannot tell"
        return "agrees" if self.low > 0 else "disagrees"


def judge(store: Store, claim: Claim) -> Verdict:
    """What the results file says of a claim.

    Accuracy: paired on the images that both methods classified (Newcombe 1998). FID: images are resampled, the same
    numbers for both methods (percentile bootstrap). Time: round by round, with the interval of the median from its
    order statistics, which takes 6 rounds.
    """
    known = store.methods()
    if claim.better not in known or claim.worse not in known:
        return Verdict(claim, None, None, None)
    find = {"accuracy": _accuracy, "fid": _fid, "flops": _flops, "time": _time}[claim.measure]
    found = find(store, claim.better, claim.worse)
    return Verdict(claim, None, None, None) if found is None else Verdict(claim, *found)


Found = tuple[float, float | None, float | None] | None


def _accuracy(store: Store, better: str, worse: str) -> Found:
    ours = {row.image_id: row.prediction in row.labels for row in store.classified(better)}
    theirs = {row.image_id: row.prediction in row.labels for row in store.classified(worse)}
    both = [identity for identity in ours if identity in theirs]
    if not both:
        return None
    gain, low, high = paired_difference([ours[i] for i in both], [theirs[i] for i in both])
    return 100 * gain, 100 * low, 100 * high


def _fid(store: Store, better: str, worse: str) -> Found:
    reference = store.reference()
    ours, theirs = ({row.image: row for row in store.generated(method)} for method in (better, worse))
    numbers = [number for number in ours if number in theirs]
    features = [_features(rows, numbers) for rows in (ours, theirs)]
    if reference is None or len(numbers) < 2 or any(part is None for part in features):
        return None
    network = store.facts["feature_network"]

    def gain(index: np.ndarray) -> float:
        a, b = (fid(reference[1], part[index], network).value for part in features if part is not None)
        return b - a

    rng = np.random.default_rng(0)
    gains = [gain(rng.integers(len(numbers), size=len(numbers))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(gains, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return gain(np.arange(len(numbers))), float(low), float(high)


def _features(rows: dict[int, Generated], numbers: list[int]) -> np.ndarray | None:
    found = [values for number in numbers if (values := rows[number].features) is not None]
    return np.stack(found) if len(found) == len(numbers) and found else None


def _flops(store: Store, better: str, worse: str) -> Found:
    counted = store.flops()
    if better not in counted or worse not in counted:
        return None
    gain = 1 - counted[better] / counted[worse]
    return gain, gain, gain


def _time(store: Store, better: str, worse: str) -> Found:
    times = store.timing()[1]
    if better not in times or worse not in times:
        return None
    gains = sorted(1 - a / b for a, b in zip(times[better], times[worse], strict=True))
    # The k-th smallest and largest enclose the median unless fewer than k rounds fall on one side of it.
    outside = [k for k in range(1, len(gains) // 2 + 1) if 2 * binom.cdf(k - 1, len(gains), 0.5) <= 1 - _CONFIDENCE]
    if not outside:
        return median(gains), None, None
    return median(gains), gains[outside[-1] - 1], gains[-outside[-1]]
