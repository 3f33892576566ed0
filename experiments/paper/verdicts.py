"""What a run says of a claim: agrees, disagrees, or cannot tell, by a 95% interval of the paired difference."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from scipy.stats import binom

from bigain.run.summary import Paired
from experiments.paper.claims import Claim

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


def judge(paired: Paired, claim: Claim) -> Verdict:
    """What a results file says of a claim.

    Accuracy and FID: see `Comparison`. Time: round by round, with the interval of the median from its
    order statistics, which takes 6 rounds.
    """
    methods = paired.store.methods()
    if claim.better not in methods or claim.worse not in methods:
        return Verdict(claim, None, None, None)
    find = {"accuracy": _accuracy, "fid": _fid, "flops": _flops, "time": _time}[claim.measure]
    interval = find(paired, claim.better, claim.worse)
    return Verdict(claim, None, None, None) if interval is None else Verdict(claim, *interval)


Interval = tuple[float, float | None, float | None] | None


def _accuracy(paired: Paired, better: str, worse: str) -> Interval:
    gain = paired.accuracy(better, worse)
    return None if gain is None else (100 * gain.value, 100 * gain.low, 100 * gain.high)


def _fid(paired: Paired, better: str, worse: str) -> Interval:
    gain = paired.fid(better, worse)
    return None if gain is None else (gain.value, gain.low, gain.high)


def _flops(paired: Paired, better: str, worse: str) -> Interval:
    counted = paired.store.flops()
    if better not in counted or worse not in counted:
        return None
    gain = 1 - counted[better] / counted[worse]
    return gain, gain, gain


def _time(paired: Paired, better: str, worse: str) -> Interval:
    times = paired.store.timing()[1]
    if better not in times or worse not in times:
        return None
    gains = sorted(1 - a / b for a, b in zip(times[better], times[worse], strict=True))
    # The k-th smallest and largest enclose the median unless fewer than k rounds fall on one side of it.
    outside = [k for k in range(1, len(gains) // 2 + 1) if 2 * binom.cdf(k - 1, len(gains), 0.5) <= 1 - _CONFIDENCE]
    if not outside:
        return median(gains), None, None
    return median(gains), gains[outside[-1] - 1], gains[-outside[-1]]
