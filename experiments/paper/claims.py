"""The tables of the paper that can be asked of any model: which methods each compares, and what it is said to show.

Facts after "BiGain: Unified Token Compression for Joint Generation and Classification", arXiv 2603.12240; its figures
are for Stable Diffusion 2.0 and DiT-XL/2 and are not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bigain.methods import TokenMerging, parse, spec
from bigain.operators.frequency import SCORES

Measure = Literal["accuracy", "fid", "flops", "time"]
MEASURES: tuple[str, ...] = get_args(Measure)
_COSTS: tuple[tuple[str, Measure], ...] = (("fewer FLOPs", "flops"), ("less time", "time"))


@dataclass(frozen=True)
class Claim:
    """That one method is better than another, or than none, in one measure.

    Args:
        text: the claim in words.
        better, worse: specs.
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
        number: as the paper counts.
        title: what varies.
        methods: specs that are compared, "none" not among them.
        claims: what it is said to show; empty where this package does not know of a claim that can be tested.
    """

    number: str
    title: str
    methods: tuple[str, ...]
    claims: tuple[Claim, ...]


def paper_tables(ratio: float = 0.7, factor: int = 2) -> dict[str, PaperTable]:
    """All tables by number, at a ratio of merging and a factor of downsampling.

    Raises:
        ValueError: a ratio or factor that no method takes.
    """
    merging, pooling = f"ratio={ratio:g}", f"factor={factor}"
    lgtm, abm = _canonical(f"lgtm:{merging}"), _canonical(f"abm:{merging}")
    cached = _canonical(f"lgtm:{merging},cached=true")
    iekvd, todo, average = (_canonical(f"{name}:{pooling}") for name in ("iekvd", "todo", "avgpool"))
    schedule = _canonical(f"iekvd:{pooling},alpha=0.8>1.2")
    high, low = (_canonical(f"freqsel:{pooling},keep={keep}") for keep in ("high", "low"))
    locations = {
        words: _canonical(f"lgtm:{merging},locations={words}")
        for words in (
            "self_attention/cross_attention",
            "self_attention/mlp",
            "self_attention/cross_attention/mlp",
        )
    }
    scores = {name: _canonical(f"lgtm:{merging},score={name}") for name in SCORES if name != "laplacian_l1"}
    alphas = {alpha: _canonical(f"iekvd:{pooling},alpha={alpha}") for alpha in ("0.8", "1.0", "1.1", "1.2")}
    both = _canonical(f"{lgtm}+{iekvd}")
    tables = (
        PaperTable("6", "where tokens are merged", (lgtm, *locations.values()), ()),
        PaperTable(
            "7",
            "the cost of the assignment",
            (lgtm, cached, abm),
            (
                Claim("an assignment that is kept for a level costs fewer FLOPs", cached, lgtm, "flops"),
                Claim("adaptive block merging costs fewer FLOPs than matching", abm, lgtm, "flops"),
            ),
        ),
        PaperTable(
            "8",
            "the token score",
            (lgtm, *scores.values()),
            tuple(
                Claim(f"the Laplacian (l1) classifies better than {name}", lgtm, other, "accuracy")
                for name, other in scores.items()
                if name != "spectral_dct"  # not in the paper's table
            ),
        ),
        PaperTable(
            "11 and 18",
            "FLOPs and time",
            (lgtm, iekvd),
            tuple(
                Claim(f"{name} takes {what} than no compression", method, "none", measure)
                for name, method in (("merging", lgtm), ("downsampling", iekvd))
                for what, measure in _COSTS
            ),
        ),
        PaperTable(
            "12",
            "keys and values of high or of low frequency alone",
            (iekvd, high, low),
            (
                Claim("detail alone classifies worse than both together", iekvd, high, "accuracy"),
                Claim("smoothness alone classifies worse than both together", iekvd, low, "accuracy"),
            ),
        ),
        PaperTable(
            "15",
            "α in classification",
            (average, *(alphas[alpha] for alpha in ("0.8", "1.0", "1.1", "1.2")), iekvd),
            (
                Claim("α 0.9 classifies better than the mean (α 0)", iekvd, average, "accuracy"),
                Claim("α 0.9 classifies better than α 1.2", iekvd, alphas["1.2"], "accuracy"),
            ),
        ),
        PaperTable(
            "16",
            "α in generation",
            (todo, average, iekvd, schedule),
            (
                Claim("α from 0.8 to 1.2 over the timesteps generates better than nearest", schedule, todo, "fid"),
                Claim("α from 0.8 to 1.2 over the timesteps generates better than α 0.9", schedule, iekvd, "fid"),
            ),
        ),
        PaperTable(
            "17",
            "merging and downsampling together",
            (lgtm, iekvd, both),
            (
                Claim("both together classify worse than merging alone", lgtm, both, "accuracy"),
                Claim("both together classify worse than downsampling alone", iekvd, both, "accuracy"),
            ),
        ),
    )
    return {table.number.partition(" ")[0]: table for table in tables}


def asks_for_text(method: str) -> bool:
    """Whether a method merges around cross-attention, which class-conditional models do not have."""
    return any(isinstance(one, TokenMerging) and "cross_attention" in one.locations for one in parse(method))


def _canonical(text: str) -> str:
    return spec(parse(text))
