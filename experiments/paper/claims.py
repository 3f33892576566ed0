"""The tables of the paper that can be asked of any model: which methods each compares, and what it is said to show.

Facts after "BiGain: Unified Token Compression for Joint Generation and Classification", arXiv 2603.12240.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bigain.methods import TokenMerging, parse
from bigain.methods.base import SCORES

Measure = Literal["accuracy", "fid", "flops", "time"]
MEASURES: tuple[str, ...] = get_args(Measure)


@dataclass(frozen=True)
class Claim:
    """That one method is better than another, or than none, in one measure.

    Args:
        text: the claim in words.
        better, worse: canonical specs.
        measure: "accuracy" (higher is better), "fid", "flops" or "time" (lower is better).
    """

    text: str
    better: str
    worse: str
    measure: Measure


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    Args:
        title: what varies.
        methods: canonical specs that are compared, "none" not among them.
        claims: what it is said to show; empty where no claim is known that can be tested.
    """

    title: str
    methods: tuple[str, ...]
    claims: tuple[Claim, ...] = ()


def paper_tables(ratio: float = 0.7, factor: int = 2) -> dict[str, PaperTable]:
    """All tables by number, at a ratio of merging and a factor of downsampling; 11 stands for 18 too.

    Raises:
        ValueError: a ratio or factor that no method takes.
    """
    merging, pooling = f"ratio={ratio:g}", f"factor={factor}"
    tables = _merging(merging) | _cost(merging, pooling) | _pooling(pooling)
    return dict(sorted(tables.items(), key=lambda item: int(item[0])))


def _merging(ratio: str) -> dict[str, PaperTable]:
    lgtm, cached, abm = _specs(f"lgtm:{ratio}", f"lgtm:{ratio},cached=true", f"abm:{ratio}")
    places = ("self_attention/cross_attention", "self_attention/mlp", "self_attention/cross_attention/mlp")
    scores = {name: f"lgtm:{ratio},score={name}" for name in SCORES if name != "laplacian_l1"}
    return {
        "6": PaperTable("where tokens are merged", _specs(lgtm, *(f"lgtm:{ratio},locations={one}" for one in places))),
        "7": PaperTable(
            "the cost of the assignment",
            (lgtm, cached, abm),
            (
                Claim("an assignment that is kept for a level costs fewer FLOPs", cached, lgtm, "flops"),
                Claim("adaptive block merging costs fewer FLOPs than matching", abm, lgtm, "flops"),
            ),
        ),
        "8": PaperTable(
            "the token score",
            _specs(lgtm, *scores.values()),
            tuple(
                Claim(f"the Laplacian (l1) classifies better than {name}", lgtm, *_specs(score), "accuracy")
                for name, score in scores.items()
                if name != "spectral_dct"  # not in the paper's table
            ),
        ),
    }


def _cost(ratio: str, factor: str) -> dict[str, PaperTable]:
    lgtm, iekvd, both = _specs(f"lgtm:{ratio}", f"iekvd:{factor}", f"lgtm:{ratio}+iekvd:{factor}")
    return {
        "11": PaperTable(
            "FLOPs and time",
            (lgtm, iekvd),
            (
                Claim("merging takes fewer FLOPs than no compression", lgtm, "none", "flops"),
                Claim("merging takes less time than no compression", lgtm, "none", "time"),
                Claim("downsampling takes fewer FLOPs than no compression", iekvd, "none", "flops"),
                Claim("downsampling takes less time than no compression", iekvd, "none", "time"),
            ),
        ),
        "17": PaperTable(
            "merging and downsampling together",
            (lgtm, iekvd, both),
            (
                Claim("both together classify worse than merging only", lgtm, both, "accuracy"),
                Claim("both together classify worse than downsampling only", iekvd, both, "accuracy"),
            ),
        ),
    }


def _pooling(factor: str) -> dict[str, PaperTable]:
    iekvd, todo, average, schedule = _specs(
        f"iekvd:{factor}", f"todo:{factor}", f"avgpool:{factor}", f"iekvd:{factor},alpha=0.8>1.2"
    )
    high, low = _specs(f"freqsel:{factor},keep=high", f"freqsel:{factor},keep=low")
    alphas = _specs(*(f"iekvd:{factor},alpha={alpha}" for alpha in ("0.8", "1.0", "1.1", "1.2")))
    return {
        "12": PaperTable(
            "keys and values of high or of low frequency only",
            (iekvd, high, low),
            (
                Claim("detail only classifies worse than both together", iekvd, high, "accuracy"),
                Claim("smoothness only classifies worse than both together", iekvd, low, "accuracy"),
            ),
        ),
        "15": PaperTable(
            "α in classification",
            (average, *alphas, iekvd),
            (
                Claim("α 0.9 classifies better than the mean (α 0)", iekvd, average, "accuracy"),
                Claim("α 0.9 classifies better than α 1.2", iekvd, alphas[-1], "accuracy"),
            ),
        ),
        "16": PaperTable(
            "α in generation",
            (todo, average, iekvd, schedule),
            (
                Claim("α from 0.8 to 1.2 over the timesteps generates better than nearest", schedule, todo, "fid"),
                Claim("α from 0.8 to 1.2 over the timesteps generates better than α 0.9", schedule, iekvd, "fid"),
            ),
        ),
    }


def asks_for_text(method: str) -> bool:
    """Whether a method merges around cross-attention, which class-conditional models do not have."""
    return any(isinstance(one, TokenMerging) and "cross_attention" in one.locations for one in parse(method))


def _specs(*texts: str) -> tuple[str, ...]:
    """The canonical forms."""
    return tuple(parse(text).text for text in texts)
